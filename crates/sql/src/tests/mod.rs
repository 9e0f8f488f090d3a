//! Tests of the whole crate.

mod cases;
mod fuzz_many;
mod lexical;
mod properties;
