//! Tests of the module as a whole.

mod cases;
mod fuzz_many;
mod lexical;
mod properties;
