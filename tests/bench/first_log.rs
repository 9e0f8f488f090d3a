//! Run → first log line.

use std::time::Instant;

use anyhow::Context as _;
use sqlflow_proto::v1::Result as Page;
use sqlflow_proto::v1::response::Response;

use crate::measure::{Measurement, millis};
use crate::peers;
use crate::world::World;

/// It prints a line after its checks, before it loads data. SELECTs print nothing.
const TRAIN: &str = r#"
SELECT * FROM iris TO TRAIN xgboost.gbtree
  WITH objective = "multi:softmax", num_class = 3, train.num_boost_round = 1
  LABEL class INTO bench.iris_model;"#;

/// The first line of a training, the whole training, and the start of Python alone.
pub async fn all(world: &mut World) -> anyhow::Result<Vec<Measurement>> {
    let mut first_line =
        Measurement::time("run_to_first_log", "Run → first log line").beside("python_submitter");
    let mut end =
        Measurement::time("run_to_trained", "Run → end of a TRAIN of one round").beside("python_submitter");
    let mut bare = Measurement::time("python", "  python -c \"print(1)\"");
    let mut library = Measurement::time("python_submitter", "  python -c \"import sqlflow_submitter\"");
    for _ in 0..world.scale.trainings {
        world.rest().await;
        let begin = Instant::now();
        first_line.add(train(world, begin).await?);
        end.add_since(begin);
        bare.clock(async { peers::bare_python() }).await?;
        library.clock(async { peers::python_with_submitter() }).await?;
    }
    Ok(vec![first_line, end, library, bare])
}

/// Trains to the end. Returns when the first line was seen.
async fn train(world: &mut World, begin: Instant) -> anyhow::Result<f64> {
    let token = world.client.run(TRAIN).await?;
    let mut seen_after = None;
    world
        .follow(&token, |page| {
            if has_log(page) {
                seen_after.get_or_insert_with(|| millis(begin.elapsed()));
            }
        })
        .await?;
    seen_after.context("the training printed nothing")
}

fn has_log(page: &Page) -> bool {
    page.results.iter().any(|result| matches!(result.response, Some(Response::Log(_))))
}
