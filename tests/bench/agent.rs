//! The static agent with a command: its cost compared with no agent and with its peers.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlflow_tests::python;
use sqlflow_tests::server::Setup;

use crate::arguments::Scale;
use crate::measure::Measurement;

/// The static agent.
pub fn shipped() -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("SQLFLOW_TEST_STATIC_AGENT");
    Ok(path.context("SQLFLOW_TEST_STATIC_AGENT names the static agent; `make bench` sets it")?.into())
}

/// A server whose agents are the static one, with the data process beside it: what ships, and what images hold.
pub fn setup(dir: &Path, datasource: impl Into<String>) -> anyhow::Result<Setup> {
    let agent = shipped()?;
    let data = agent.with_file_name("sqlflow-data");
    ensure!(data.is_file(), "{} is not built; `make agent` does that", data.display());
    Ok(Setup::new(dir, datasource).flag(format!("--agent={}", agent.display())))
}

fn agent(flags: &[&str]) -> anyhow::Result<Command> {
    let mut command = Command::new(shipped()?);
    command.arg("exec").args(flags).arg("--").stdin(Stdio::null());
    Ok(command)
}

/// Programs that run a command; `None`: the command alone.
fn in_front(name: Option<&str>) -> anyhow::Result<Command> {
    let mut command = match name {
        None => Command::new("env"),
        Some("agent") => return agent(&[]),
        Some(other) => {
            let mut command = Command::new(other);
            if other == "tini" {
                // A subreaper, as the agent is; without that it complains.
                command.arg("-s");
            }
            command.arg("--");
            command
        }
    };
    command.stdin(Stdio::null());
    Ok(command)
}

/// Size and idle memory.
pub fn small(scale: &Scale) -> anyhow::Result<Vec<Measurement>> {
    let mut size = Measurement::new("agent_size", "MB", "agent: static program");
    size.add(shipped()?.metadata()?.len() as f64 / 1e6);
    let mut memory = Measurement::new("agent_memory", "MB", "agent: memory while its command sleeps");
    for _ in 0..scale.starts.min(20) {
        let mut child = agent(&[])?
            .args(["sh", "-c", "echo up; exec sleep 600"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("stdout is piped")?).read_line(&mut line)?;
        memory.add(status_bytes(child.id(), "VmRSS:")? / 1e6);
        kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGTERM)?;
        child.wait()?;
    }
    Ok(vec![size, memory])
}

/// A field of `/proc/<pid>/status`, in bytes.
pub fn status_bytes(pid: u32, field: &str) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line =
        status.lines().find_map(|line| line.strip_prefix(field)).with_context(|| format!("no {field}"))?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024.0)
}

/// Start and end: the run time of a command that does nothing, and the delay until a command's end is noticed.
pub fn starts(scale: &Scale) -> anyhow::Result<Vec<Measurement>> {
    let ways = [
        (None, "start_bare", "exit_bare", "env"),
        (Some("tini"), "start_tini", "exit_tini", "tini"),
        (Some("dumb-init"), "start_dumb_init", "exit_dumb_init", "dumb-init"),
        (Some("agent"), "start_agent", "exit_agent", "agent"),
    ];
    let mut starts: Vec<_> = ways
        .iter()
        .map(|(_, start, _, name)| Measurement::time(*start, format!("{name}: /bin/true, from start to end")))
        .collect();
    let mut exits: Vec<_> = ways
        .iter()
        .map(|(_, _, exit, name)| {
            Measurement::time(*exit, format!("{name}: last act of date → end is known"))
        })
        .collect();
    for _ in 0..scale.starts {
        // In turn, so that a noisy minute is noisy for all.
        for (at, (way, ..)) in ways.iter().enumerate() {
            let begun = Instant::now();
            ensure!(in_front(*way)?.arg("/bin/true").status()?.success(), "{way:?} fails");
            starts[at].add_since(begun);
            let mut child = in_front(*way)?.args(["date", "+%s%N"]).stdout(Stdio::piped()).spawn()?;
            child.wait()?;
            let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
            let mut said = String::new();
            child.stdout.take().context("stdout is piped")?.read_to_string(&mut said)?;
            exits[at].add((now.as_nanos() as f64 - said.trim().parse::<f64>()?) / 1e6);
        }
    }
    let peers = starts.remove(3).beside("start_tini");
    let exit = exits.remove(3).beside("exit_tini");
    Ok(std::iter::once(peers).chain(starts).chain(std::iter::once(exit)).chain(exits).collect())
}

/// Throughput of a command's output through the agent, in bytes and lines.
pub fn output(scale: &Scale) -> anyhow::Result<Vec<Measurement>> {
    let mut null = Measurement::new("agent_null_sink", "MiB/s", "agent: output taken from a child, no sink")
        .beside("pipe");
    let mut mirrored =
        Measurement::new("agent_mirror", "MiB/s", "agent: the same, repeated on its stdout").beside("pipe");
    let mut pipe = Measurement::new("pipe", "MiB/s", "  head | cat > /dev/null");
    let mut peak = Measurement::new("agent_peak", "MB", "agent: largest memory meanwhile");
    let bytes = scale.megabytes << 20;
    let head = ["head".to_owned(), "-c".to_owned(), bytes.to_string(), "/dev/zero".to_owned()];
    for _ in 0..scale.streams {
        for (measurement, flags) in [(&mut null, &["--tee", "none"][..]), (&mut mirrored, &[])] {
            let begun = Instant::now();
            // The command's last act is to look at the agent; an end of stderr that is not a number fails below.
            let script = "\"$@\"; sed -n 's/^VmHWM:[^0-9]*\\([0-9]*\\).*/\\1/p' /proc/$PPID/status >&2";
            let mut child = agent(flags)?
                .args(["sh", "-c", script, "sh"])
                .args(&head)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()?;
            let mut sink = child.stdout.take().context("stdout is piped")?;
            std::io::copy(&mut sink, &mut std::io::sink())?;
            ensure!(child.wait()?.success(), "the agent fails");
            if flags.is_empty() {
                let mut kib = String::new();
                child.stderr.take().context("stderr is piped")?.read_to_string(&mut kib)?;
                peak.add(kib.trim().parse::<f64>()? * 1024.0 / 1e6);
            }
            measurement.add(scale.megabytes as f64 / begun.elapsed().as_secs_f64());
        }
        let begun = Instant::now();
        let script = format!("head -c {bytes} /dev/zero | cat > /dev/null");
        ensure!(Command::new("sh").args(["-c", &script]).status()?.success(), "the pipe fails");
        pipe.add(scale.megabytes as f64 / begun.elapsed().as_secs_f64());
    }
    let mut lines =
        Measurement::new("agent_lines", "lines/s", "agent: short lines, a write each").beside("lines_bare");
    let mut bare = Measurement::new("lines_bare", "lines/s", "  the same to /dev/null");
    let code =
        "import os\nfor i in range(300_000): os.write(1, b'a line of forty bytes, as programs print\\n')";
    for _ in 0..scale.streams {
        let python = python::program();
        for (measurement, mut command) in
            [(&mut lines, agent(&["--tee", "none"])?), (&mut bare, in_front(None)?)]
        {
            let begun = Instant::now();
            ensure!(
                command.arg(&python).args(["-c", code]).stdout(Stdio::null()).status()?.success(),
                "it fails"
            );
            measurement.add(300_000.0 / begun.elapsed().as_secs_f64());
        }
    }
    Ok(vec![null, mirrored, pipe, peak, lines, bare])
}

/// A thousand orphans that end at the same time.
pub fn orphans(scale: &Scale) -> anyhow::Result<Vec<Measurement>> {
    let mut time = Measurement::time("agent_orphans", "agent: 1,000 orphans end at once → all are reaped");
    // The orphans wait on a pipe whose other end only the program holds.
    let code = "
import os, time
r, w = os.pipe()
agent = os.getppid()
for _ in range(1000):
    pid = os.fork()
    if pid == 0:
        if os.fork() == 0:
            os.close(w); os.read(r, 1)
        os._exit(0)
    os.waitpid(pid, 0)
children = f'/proc/{agent}/task/{agent}/children'
assert len(open(children).read().split()) == 1001
begin = time.perf_counter()
os.close(w)
while len(open(children).read().split()) > 1: pass
print((time.perf_counter() - begin) * 1000)
";
    for _ in 0..scale.streams.max(2) {
        let output = agent(&[])?.arg(python::program()).args(["-c", code]).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        time.add(String::from_utf8(output.stdout)?.trim().parse()?);
    }
    Ok(vec![time])
}
