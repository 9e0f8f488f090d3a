//! Processes of jobs, found in /proc.

use nix::unistd::Pid;

/// A process with its arguments and its variable `SQLFLOW_ATTEMPT`, if it has one.
#[derive(Debug, Clone)]
pub struct Process {
    pub pid: Pid,
    pub arguments: String,
    pub mark: Option<String>,
}

/// All processes of this machine, or of this namespace.
pub fn all() -> Vec<Process> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?);
            let arguments = std::fs::read(entry.path().join("cmdline")).ok()?;
            let environ = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            let mark = environ
                .split(|byte| *byte == 0)
                .find_map(|variable| variable.strip_prefix(b"SQLFLOW_ATTEMPT="))
                .map(|mark| String::from_utf8_lossy(mark).into_owned());
            let arguments = String::from_utf8_lossy(&arguments).replace('\0', " ");
            Some(Process { pid, arguments, mark })
        })
        .collect()
}

/// The agents of a job.
pub fn agents(job_id: &str) -> Vec<Pid> {
    let is_it = |it: &Process| it.arguments.contains("sqlflow-agent") && it.arguments.contains(job_id);
    // Only submitters have the variable.
    all().into_iter().filter(|it| it.mark.is_none() && is_it(it)).map(|it| it.pid).collect()
}

/// The submitters of a job and the processes that they started.
pub fn submitters(job_id: &str) -> Vec<Pid> {
    let is_it = |mark: &String| mark.split('/').next() == Some(job_id);
    all().into_iter().filter(|it| it.mark.as_ref().is_some_and(is_it)).map(|it| it.pid).collect()
}
