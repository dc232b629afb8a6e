//! Members over a running service. tests/integrations of the repository starts it, and runs these
//! with `--ignored`; integrations/README.md has the variables by which it tells where it is. For
//! `refusals`, `HSM_KP_TEST_LAST_RESORT` is the reference of a key package of last resort.

mod other;
mod refusals;
mod setting;
mod whole_way;
