//! A fuzzer that needs no nightly compiler: it mutates the shared cases token by token.
//!
//! `SQL_FUZZ_INPUTS` is the number of inputs (default 200,000). The seed is fixed, so failures are reproducible; the message
//! has the input. `make drill` runs ten million in release mode.

use std::thread;

use super::super::{Dialect, compile, parse_program, to_json};
use super::cases::programs;

/// Pieces with a meaning, and pieces that may break the parser.
const PIECES: [&str; 78] = [
    "SELECT",
    "FROM",
    "TO",
    "TRAIN",
    "PREDICT",
    "EXPLAIN",
    "EVALUATE",
    "RUN",
    "MAXIMIZE",
    "MINIMIZE",
    "SHOW",
    "WITH",
    "COLUMN",
    "LABEL",
    "USING",
    "INTO",
    "FOR",
    "CMD",
    "CONSTRAINT",
    "GROUP",
    "BY",
    "AND",
    "OR",
    "NOT",
    "CREATE TRIGGER",
    "PROCEDURE",
    "BEGIN",
    "END",
    "IF",
    "CASE",
    "THEN",
    "LOOP",
    "REPEAT",
    "USE d;",
    "SET @a = (1);",
    "SET autocommit=0;",
    "TEMPORARY TABLE",
    "CREATE",
    "DROP TABLE",
    "SAVEPOINT s;",
    "RELEASE s;",
    "COMMIT;",
    "EXPLAIN ANALYZE",
    "PRAGMA",
    "FOR UPDATE",
    "INTO @x",
    "DENSE(",
    "BUCKET(a,[1,2])",
    "CROSS([",
    "EMBEDDING(",
    "*",
    "[",
    "]",
    "(",
    ")",
    ",",
    ";",
    "=",
    "<=",
    "<>",
    "-",
    "--",
    "-- ",
    "#",
    "/*",
    "*/",
    "/*!",
    "'",
    "\"",
    "`",
    "\\",
    "$$",
    "$t$",
    "E'",
    "\u{feff}",
    "\u{a0}",
    "\n",
    "🦀",
];

/// xorshift64*: the same sequence on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        usize::try_from(high).expect("32 bits fit") % bound
    }

    fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }
}

/// Splits a program into words, whitespace and single characters.
fn pieces(sql: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        let word = rest.find(|c: char| !c.is_alphanumeric()).unwrap_or(rest.len());
        let (piece, after) = rest.split_at(word.max(first.len_utf8()));
        pieces.push(piece);
        rest = after;
    }
    pieces
}

fn mutate(random: &mut Random, seeds: &[Vec<&str>]) -> String {
    let mut tokens = seeds[random.below(seeds.len())].clone();
    for _ in 0..=random.below(6) {
        let at = random.below(tokens.len() + 1);
        let until = (at + random.below(6)).min(tokens.len());
        match random.below(6) {
            0 => drop(tokens.drain(at..until)),
            1 => tokens.splice(at..at, [random.pick(&PIECES)]).for_each(drop),
            2 => tokens.splice(at..until, [random.pick(&PIECES), " "]).for_each(drop),
            3 => {
                let copy = tokens[at..until].to_vec();
                let to = random.below(tokens.len() + 1);
                tokens.splice(to..to, copy).for_each(drop);
            }
            4 => {
                let other = &seeds[random.below(seeds.len())];
                let from = random.below(other.len() + 1);
                tokens.truncate(at);
                tokens.extend_from_slice(&other[from..]);
            }
            _ => {
                let other = random.below(tokens.len().max(1));
                if at < tokens.len() {
                    tokens.swap(at, other);
                }
            }
        }
    }
    tokens.concat()
}

/// Prints the input if the test panics.
struct PrintOnPanic<'a>(&'a str, Dialect);

impl Drop for PrintOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("the input was, in {}: {:?}", self.1, self.0);
        }
    }
}

fn try_input(sql: &str, dialect: Dialect) {
    let _blame = PrintOnPanic(sql, dialect);
    match compile(sql, dialect) {
        Ok(compiled) => {
            let run: Vec<usize> =
                compiled.steps.iter().flat_map(|step| step.kind.statements()).copied().collect();
            assert!(
                run.iter().copied().eq(0..compiled.program.statements.len()),
                "every statement runs once, in order"
            );
        }
        Err(error) => {
            assert!(error.iter().all(|it| it.line > 0 && it.column > 0 && !it.to_string().is_empty()));
        }
    }
    if let Ok(program) = parse_program(sql, dialect) {
        let mut end = 0;
        for statement in &program.statements {
            assert!(statement.span.start >= end && sql[statement.span.clone()] == statement.text);
            end = statement.span.end;
        }
        drop(to_json(&program));
    }
}

#[test]
fn mutated_input_is_compiled_or_rejected() {
    let inputs: u64 =
        std::env::var("SQL_FUZZ_INPUTS").ok().and_then(|count| count.parse().ok()).unwrap_or(200_000);
    let programs = programs();
    let seeds: Vec<Vec<&str>> =
        programs.iter().map(|sql| pieces(sql)).filter(|seed| !seed.is_empty()).collect();
    let threads = thread::available_parallelism().map_or(1, |count| u64::try_from(count.get()).unwrap_or(1));
    thread::scope(|scope| {
        for worker in 0..threads {
            let seeds = &seeds;
            scope.spawn(move || {
                let share = inputs / threads + u64::from(worker < inputs % threads);
                let mut random = Random(0x5eed_0000 + worker);
                for input in 0..share {
                    let sql = mutate(&mut random, seeds);
                    let dialect = Dialect::ALL[usize::try_from(input % 3).expect("three dialects")];
                    try_input(&sql, dialect);
                }
            });
        }
    });
}
