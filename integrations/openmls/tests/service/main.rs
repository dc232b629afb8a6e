//! Tests of members over a running service. The repository's tests/integrations starts it and runs
//! these with `--ignored`; integrations/README.md lists the variables by which it passes the
//! addresses. For `refusals`, `HSM_KP_TEST_LAST_RESORT` is the reference of a key package of last
//! resort.

mod other;
mod refusals;
mod setting;
mod whole_way;
