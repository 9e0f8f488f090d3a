//! Publishing of a model, compared with `tar | gzip -1`, alone and into Hadoop's own client and boto3.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, ensure};
use sqlflow_tests::services::{Hdfs, S3, S3_KEY};
use tempfile::TempDir;

use crate::agent;
use crate::measure::Measurement;

/// Weights are hardly compressible.
fn weights(dir: &Path, megabytes: u64) -> anyhow::Result<()> {
    let mut file = std::fs::File::create(dir.join("weights"))?;
    let mut piece = vec![0; 1 << 20];
    for _ in 0..megabytes {
        rand::fill(&mut piece[..]);
        std::io::Write::write_all(&mut file, &piece)?;
    }
    file.sync_all().context("the weights cannot be written")
}

/// Megabytes of the folder per second, each way in turn.
pub fn all(folder: &Path, megabytes: u64, rounds: u32) -> anyhow::Result<Vec<Measurement>> {
    let dir = TempDir::new_in(folder)?;
    let out = dir.path().join("out");
    std::fs::create_dir(&out)?;
    weights(&out, megabytes)?;
    let (hdfs, s3) = (Hdfs::start(), S3::start());
    s3.bucket("bench");
    let mut by_hand = Measurement::new("tar_gzip", "MiB/s", "  tar | gzip -1, into a file");
    let mut to_file =
        Measurement::new("publish_file", "MiB/s", "agent: a model into a file").beside("tar_gzip");
    let mut put = Measurement::new("hdfs_put", "MiB/s", "  tar | gzip -1 | hdfs dfs -put -");
    let mut to_hdfs =
        Measurement::new("publish_hdfs", "MiB/s", "agent: a model into HDFS").beside("hdfs_put");
    let mut boto = Measurement::new("boto3", "MiB/s", "  tar | gzip -1 | boto3's upload_fileobj");
    let mut to_s3 = Measurement::new("publish_s3", "MiB/s", "agent: a model into S3").beside("boto3");
    let tar = format!("tar c -C {} . | gzip -1", out.display());
    for _ in 0..rounds {
        let file = dir.path().join("by-hand.tar.gz");
        by_hand.add(rate(megabytes, shell(&format!("{tar} > {0} && sync {0}", file.display())))?);
        std::fs::remove_file(file)?;
        to_file
            .add(rate(megabytes, agent(&out, &format!("file://{}/m.tar.gz", dir.path().display()), &[])?)?);
        let command = hdfs.command_line(&["dfs", "-put", "-f", "-", "/by-hand.tar.gz"]);
        put.add(rate(megabytes, shell(&format!("{tar} | {command}")))?);
        let user = [("HADOOP_USER_NAME", "root".to_owned())];
        let uri = format!("hdfs://127.0.0.1:{}/m/m.tar.gz", hdfs.port);
        to_hdfs.add(rate(megabytes, agent(&out, &uri, &user)?)?);
        boto.add(rate(megabytes, shell(&format!("{tar} | {}", upload(&s3)?)))?);
        to_s3.add(rate(megabytes, agent(&out, "s3://bench/m/m.tar.gz", &s3.environment())?)?);
    }
    Ok(vec![to_file, by_hand, to_hdfs, put, to_s3, boto])
}

fn rate(megabytes: u64, mut command: Command) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let output = command.stdin(Stdio::null()).output()?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(megabytes as f64 / begun.elapsed().as_secs_f64())
}

fn shell(script: &str) -> Command {
    let mut command = Command::new("bash");
    command.args(["-o", "pipefail", "-c", script]);
    command
}

fn agent(out: &Path, uri: &str, environment: &[(&'static str, String)]) -> anyhow::Result<Command> {
    let mut command = Command::new(agent::shipped()?);
    command.arg("exec").arg(format!("--output={}={uri}", out.display())).args(["--", "true"]);
    command.envs(environment.iter().map(|(name, value)| (*name, value)));
    Ok(command)
}

/// boto3 with its defaults.
fn upload(s3: &S3) -> anyhow::Result<String> {
    let python = std::env::var("SQLFLOW_TEST_S3_PYTHON").context("`make bench` names a Python with boto3")?;
    let (key, secret) = S3_KEY;
    Ok(format!(
        r#"{python} -c "import boto3, sys
s3 = boto3.client('s3', endpoint_url='http://127.0.0.1:{}', aws_access_key_id='{key}', aws_secret_access_key='{secret}', region_name='us-east-1')
s3.upload_fileobj(sys.stdin.buffer, 'bench', 'by-hand.tar.gz')""#,
        s3.port
    ))
}
