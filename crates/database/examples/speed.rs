use sqlflow_database::{Batch, Column, ConnectOptions, Error, Results};
use std::sync::Arc;
use std::time::Instant;
struct Count(usize, usize);
impl Results for Count {
    fn result_set(&mut self, _: &[Column]) -> Result<(), Error> {
        Ok(())
    }
    fn batch(&mut self, batch: Batch) -> Result<(), Error> {
        self.0 += batch.rows;
        self.1 += 1;
        Ok(())
    }
    fn changed(&mut self, _: Option<u64>) {}
}
fn main() {
    let mut args = std::env::args().skip(1);
    let dsn = args.next().unwrap();
    let options = ConnectOptions { replay: vec![], may_create: false, notify: Arc::new(|_| ()) };
    let mut database = sqlflow_database::connect(&dsn, options).unwrap();
    for sql in args {
        let start = Instant::now();
        let cpu = || {
            let s = std::fs::read_to_string("/proc/self/stat").unwrap();
            let f: Vec<&str> = s.split(' ').collect();
            (f[13].parse::<u64>().unwrap(), f[14].parse::<u64>().unwrap())
        };
        let before = cpu();
        let mut count = Count(0, 0);
        database.execute(&sql, &mut count).unwrap();
        let after = cpu();
        let s = start.elapsed().as_secs_f64();
        println!(
            "{} rows {} batches {:.3} s {:.0} rows/s user {}0 ms sys {}0 ms  {}",
            count.0,
            count.1,
            s,
            count.0 as f64 / s,
            after.0 - before.0,
            after.1 - before.1,
            &sql[..sql.len().min(40)]
        );
    }
}
