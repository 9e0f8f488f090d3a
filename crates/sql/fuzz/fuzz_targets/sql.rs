//! Any text at all is compiled or refused, in every dialect.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sqlflow_sql::{Dialect, compile};

fuzz_target!(|sql: &str| {
    for dialect in Dialect::ALL {
        if let Err(error) = compile(sql, dialect) {
            assert!(!error.to_string().is_empty());
        }
    }
});
