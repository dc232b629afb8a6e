//! Members over a running service. tests/integrations of the repository starts it, and runs these
//! with `--ignored`; integrations/README.md has the variables by which it tells where it is.

mod other;
mod refusals;
mod setting;
mod whole_way;
