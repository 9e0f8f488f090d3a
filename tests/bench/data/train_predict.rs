//! TRAIN and PREDICT of the wide table, in time and memory.

use std::time::Instant;

use anyhow::Context as _;

use super::memory::{Sampler, Tree};
use super::script::{self, PREDICT_PANDAS, Ran, TRAIN_CONNECTORX, TRAIN_PANDAS};
use super::{Database, Ours};
use crate::arguments::Scale;
use crate::measure::{Goal, Measurement, millis};
use crate::world::follow;

const TRAIN: &str = r#"
SELECT * FROM wide TO TRAIN xgboost.gbtree
  WITH objective = "binary:logistic", tree_method = "hist", nthread = 2, train.num_boost_round = 10
  LABEL label INTO bench.wide;"#;
const PREDICT: &str = "SELECT * FROM wide TO PREDICT predicted.predicted USING bench.wide;";

/// Both, each round ours and all peers in turn.
pub async fn all(ours: &mut Ours, scale: &Scale) -> anyhow::Result<Vec<Measurement>> {
    let mut measured = trainings(ours, scale).await?;
    measured.extend(predictions(ours, scale).await?);
    Ok(measured)
}

/// TRAIN alone.
pub async fn trainings(ours: &mut Ours, scale: &Scale) -> anyhow::Result<Vec<Measurement>> {
    let mut train = Train::new(&ours.database, scale);
    let (url, sqlalchemy_url) = (ours.database.url(), ours.database.sqlalchemy_url());
    let model = pandas_model(ours)?;
    for _ in 0..scale.rounds {
        train.ours.add(job(ours, TRAIN).await?);
        train.connectorx.add(script::run(TRAIN_CONNECTORX, &[&url, "DMatrix"])?);
        train.quantile.add(script::run(TRAIN_CONNECTORX, &[&url, "QuantileDMatrix"])?);
        train.pandas.add(script::run(TRAIN_PANDAS, &[&sqlalchemy_url, &model])?);
    }
    let sides = [train.ours, train.connectorx, train.quantile, train.pandas];
    Ok(sides.into_iter().flat_map(Side::measurements).collect())
}

/// PREDICT with the models of the trainings before it.
async fn predictions(ours: &mut Ours, scale: &Scale) -> anyhow::Result<Vec<Measurement>> {
    let mut predict = Predict::new(&ours.database, scale);
    let sqlalchemy_url = ours.database.sqlalchemy_url();
    let model = pandas_model(ours)?;
    for _ in 0..scale.rounds {
        predict.ours.add(job(ours, PREDICT).await?);
        predict.pandas.add(script::run(PREDICT_PANDAS, &[&sqlalchemy_url, &model])?);
    }
    Ok([predict.ours, predict.pandas].into_iter().flat_map(Side::measurements).collect())
}

/// Where the script with pandas keeps its model.
fn pandas_model(ours: &Ours) -> anyhow::Result<String> {
    let path = ours.dir.path().join("pandas-model.json");
    Ok(path.to_str().context("the path is text")?.to_owned())
}

struct Train {
    ours: Side,
    connectorx: Side,
    quantile: Side,
    pandas: Side,
}

impl Train {
    fn new(database: &Database, scale: &Scale) -> Self {
        let key = format!("train_{}", database.key());
        let what = format!("{}: TRAIN of {} rows × 20, 10 rounds", database.title(), scale.rows);
        let peer = |name: &str| format!("{key}_{name}");
        let [connectorx, quantile, pandas] = ["connectorx", "connectorx_quantile", "pandas"].map(peer);
        let mut ours = Side::new(&key, &what);
        ours.time = ours
            .time
            .goal_beside(Goal::AtMost(0.75), &connectorx)
            .beside(&quantile)
            .goal_beside(Goal::AtMost(0.45), &pandas);
        ours.memory = ours.memory.goal(Goal::AtMost(450.0));
        Self {
            ours,
            connectorx: Side::new(&connectorx, "  connectorx (Arrow), DMatrix"),
            quantile: Side::new(&quantile, "  connectorx (Arrow), QuantileDMatrix"),
            pandas: Side::new(&pandas, "  pandas.read_sql, DMatrix"),
        }
    }
}

struct Predict {
    ours: Side,
    pandas: Side,
}

impl Predict {
    fn new(database: &Database, scale: &Scale) -> Self {
        let key = format!("predict_{}", database.key());
        let pandas = format!("{key}_pandas");
        let mut ours = Side::new(&key, &format!("{}: PREDICT of {} rows × 20", database.title(), scale.rows));
        ours.time = ours.time.goal_beside(Goal::AtMost(0.4), &pandas);
        ours.memory = ours.memory.goal(Goal::AtMost(250.0));
        Self { ours, pandas: Side::new(&pandas, "  pandas: read_sql, to_sql in chunks") }
    }
}

/// One way to do it: its time, and the largest memory of all its programs.
struct Side {
    time: Measurement,
    memory: Measurement,
}

impl Side {
    fn new(key: &str, what: &str) -> Self {
        Self {
            time: Measurement::time(key, what),
            memory: Measurement::new(format!("{key}_memory"), "MB", format!("{what}: largest PSS")),
        }
    }

    fn add(&mut self, ran: Ran) {
        self.time.add(ran.millis);
        if let Some(peak) = ran.peak {
            self.memory.add(peak);
        }
    }

    fn measurements(self) -> impl Iterator<Item = Measurement> {
        let memory = (self.memory.count() > 0).then_some(self.memory);
        std::iter::once(self.time).chain(memory)
    }
}

/// Run → end. Memory is that of the agent and all below it; the server's is not the step's.
async fn job(ours: &mut Ours, sql: &str) -> anyhow::Result<Ran> {
    let sampler = Sampler::start(Tree::Below(u32::try_from(ours.server.pid().as_raw())?))?;
    let begun = Instant::now();
    let token = ours.client.run(sql).await?;
    follow(&mut ours.client, &token, |_| {}).await?;
    let taken = millis(begun.elapsed());
    Ok(Ran::new(taken, sampler.peak()?))
}
