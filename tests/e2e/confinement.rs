//! Hostile Python in a step: what it reaches with the kernel's Landlock, and without.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::symlink;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::process::{Command, Stdio};

use sqlflow_proto::v1::{Cause, job_status::Code};
use sqlflow_tests::server::Setup;
use sqlflow_tests::until::until;
use sqlflow_tests::{python, stand_in};

/// Runs each attack, and prints what it got.
const ATTACKS: &str = r#"
import ctypes, glob, json, os, signal, socket, sys, tempfile

server, state, database, abstract, cgroup = int(sys.argv[1]), *sys.argv[2:]
shell = os.getppid()
agent = int(open(f"/proc/{shell}/stat").read().rsplit(")", 1)[1].split()[1])
children = open(f"/proc/{agent}/task/{agent}/children").read().split()
(data,) = [int(pid) for pid in children if open(f"/proc/{pid}/comm").read() == "sqlflow-data\n"]
workspace = os.getcwd()

def read(path):
    with open(path, "rb") as file:
        file.read(1)

def write(path):
    with open(path, "r+b"):
        pass

def create(path):
    with open(path, "xb"):
        pass
    os.unlink(path)

def by_link():
    os.symlink(database, "link")
    read("link")

def by_hard_link():
    os.link(database, "hard")
    os.unlink("hard")

def by_renaming():
    os.rename(database, "stolen")
    os.rename("stolen", database)

def by_ptrace(pid):
    libc = ctypes.CDLL(None, use_errno=True)
    attach, detach = 16, 17
    if libc.ptrace(attach, pid, None, None) != 0:
        raise OSError(ctypes.get_errno(), "ptrace")
    os.waitpid(pid, 0x40000000)
    libc.ptrace(detach, pid, None, None)

def by_socket():
    with socket.socket(socket.AF_UNIX) as it:
        it.connect("\0" + abstract)

attacks = {
    "database": lambda: read(database),
    "database, to write": lambda: write(database),
    "database, by a link": by_link,
    "database, by a hard link": by_hard_link,
    "database, by another name that it has": lambda: read(database + ".hard"),
    "database, renamed": by_renaming,
    "database, truncated": lambda: os.truncate(database + "-wal", os.stat(database + "-wal").st_size),
    "database, by the root of the agent": lambda: read(f"/proc/{agent}/root{database}"),
    "database, by its own root": lambda: read(f"/proc/self/root{database}"),
    "database, by a descriptor of the data process": lambda: read(f"/proc/{data}/fd/0"),
    "write-ahead log": lambda: read(database + "-wal"),
    "journal": lambda: create(database + "-journal"),
    "state": lambda: read(f"{state}/state.db"),
    "state, by a link to its folder": lambda: read(f"{state}-link/state.db"),
    "key of the pages": lambda: read(f"{state}/links.key"),
    "new file of the state": lambda: create(f"{state}/new"),
    "workspace of another job": lambda: read(f"{state}/run/other/0-1/workspace/secret"),
    "outcome of its own attempt": lambda: create(os.path.dirname(workspace) + "/outcome"),
    "environment of the server": lambda: read(f"/proc/{server}/environ"),
    "map of the server's memory": lambda: read(f"/proc/{server}/maps"),
    "memory of the server": lambda: write(f"/proc/{server}/mem"),
    "memory of the data process": lambda: write(f"/proc/{data}/mem"),
    "server, traced": lambda: by_ptrace(server),
    "data process, traced": lambda: by_ptrace(data),
    "server, signaled": lambda: os.kill(server, 0),
    "agent, signaled": lambda: os.kill(agent, 0),
    "data process, signaled": lambda: os.kill(data, 0),
    "processes of a cgroup, to write": lambda: write(cgroup),
    "abstract socket": by_socket,
}
got = {}
for name, attack in attacks.items():
    try:
        attack()
        got[name] = "reached"
    except OSError as error:
        got[name] = f"refused: {error}"

# What a program needs.
with tempfile.NamedTemporaryFile() as file:
    got["temporary"] = os.path.dirname(file.name)
create("own")
assert os.listdir(os.path.dirname(database)) and os.listdir("/")
os.kill(os.getpid(), 0)
write("/dev/null")
os.path.exists(cgroup) and read(cgroup)
got["privileges"] = [line for line in open("/proc/self/status") if line.startswith("NoNewPrivs")][0].split()[1]
print("GOT", json.dumps(got), flush=True)
"#;

/// Results of the attacks by their name, in a TRAIN that succeeds.
async fn attack(confine: &str) -> (BTreeMap<String, String>, String) {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("data");
    fs::create_dir(&folder).unwrap();
    let file = folder.join("iris.db");
    // Opened by a link.
    let alias = folder.join("alias.db");
    let datasource = python::iris(&file).unwrap();
    symlink(&file, &alias).unwrap();
    fs::hard_link(&file, folder.join("iris.db.hard")).unwrap();
    // The log is there as long as a connection is open.
    let wal = "import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute('PRAGMA journal_mode = WAL')
db.execute('CREATE TABLE t (x)')
import os; os._exit(0)";
    python::run(wal, &[file.to_str().unwrap()]).unwrap();
    let setup = Setup::new(dir.path(), datasource.replace("iris.db", "alias.db"));
    symlink(&setup.state_dir, dir.path().join("state-link")).unwrap();
    let other = setup.state_dir.join("run/other/0-1/workspace");
    fs::create_dir_all(&other).unwrap();
    fs::write(other.join("secret"), "x").unwrap();
    let attacks = dir.path().join("attacks.py");
    fs::write(&attacks, ATTACKS).unwrap();
    let name = format!("sqlflow-test{}", dir.path().file_name().unwrap().display());
    let _listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let arguments = dir.path().join("arguments");
    let python = stand_in::python_that(
        dir.path(),
        "python",
        &format!(
            "{real} {} $(cat {}) || exit 9\nexec {real} \"$@\"",
            attacks.display(),
            arguments.display(),
            real = python::program().display()
        ),
    );
    let server = setup
        .clone()
        .flag(format!("--python={}", python.display()))
        .flag(format!("--confine={confine}"))
        .start()
        .unwrap();
    let values = [
        server.pid().to_string(),
        setup.state_dir.display().to_string(),
        file.display().to_string(),
        name,
        cgroup_processes().display().to_string(),
    ];
    fs::write(&arguments, values.join(" ")).unwrap();
    let mut client = server.client().await.unwrap();
    let train = "SELECT * FROM iris TO TRAIN xgboost.gbtree
        WITH objective = \"multi:softmax\", num_class = 3, train.num_boost_round = 2 LABEL class INTO m;";
    let token = client.run(train).await.unwrap();
    let ended = client.follow(&token).await.unwrap();
    ended.expect_success();
    let output = ended.log();
    let got = output.lines().find_map(|line| line.strip_prefix("GOT ")).expect("it printed what it got");
    let run_folder = setup.state_dir.join("run").join(&token.job_id).join("0-1");
    (serde_json::from_str(got).unwrap(), run_folder.display().to_string())
}

/// The file by which a process is moved to the root of the cgroups of version 2.
fn cgroup_processes() -> &'static Path {
    let unified = Path::new("/sys/fs/cgroup/cgroup.procs");
    if unified.exists() { unified } else { Path::new("/sys/fs/cgroup/unified/cgroup.procs") }
}

#[tokio::test(flavor = "multi_thread")]
async fn confined_python_reaches_nothing_of_others() {
    let (mut got, run_folder) = attack("require").await;
    assert_eq!(got.remove("temporary").unwrap(), format!("{run_folder}/tmp"));
    assert_eq!(got.remove("privileges").unwrap(), "1");
    let reached: Vec<_> = got.iter().filter(|(_, result)| !result.starts_with("refused")).collect();
    assert!(reached.is_empty(), "{reached:?}");
}

/// Otherwise the test above would prove nothing.
#[tokio::test(flavor = "multi_thread")]
async fn unconfined_python_reaches_all() {
    let (mut got, _) = attack("off").await;
    assert!(!got.remove("temporary").unwrap().contains("/run/"));
    assert_eq!(got.remove("privileges").unwrap(), "0");
    // The kernel keeps processes that are not dumpable from all but root.
    let is_root = nix::unistd::Uid::effective().is_root();
    let can_write_cgroups = File::options().write(true).open(cgroup_processes()).is_ok();
    let kept = |name: &str| match name {
        "processes of a cgroup, to write" => !can_write_cgroups,
        _ => !is_root && name.contains("data process") && !name.contains("signaled"),
    };
    let refused: Vec<_> = got.iter().filter(|(name, result)| *result != "reached" && !kept(name)).collect();
    assert!(refused.is_empty(), "{refused:?}");
}

/// It would start, and not find its packages.
#[tokio::test(flavor = "multi_thread")]
async fn python_in_the_state_folder_is_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new(dir.path(), format!("sqlite://{}/x.db", dir.path().display()));
    fs::create_dir(&setup.state_dir).unwrap();
    let exec = format!("exec {} \"$@\"", python::program().display());
    let python = stand_in::python_that(&setup.state_dir, "python", &exec);
    let state = setup.state_dir.display().to_string();
    let server = setup.flag(format!("--python={}", python.display())).start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run(stand_in::STEP).await.unwrap();
    let status = client.follow(&token).await.unwrap().status;
    let why = format!("{} lies in {state}, which is closed to it", python.display());
    assert!(status.message.contains(&why), "{status:?}");
}

/// Programs of the same user, also those that no agent confines.
#[test]
fn environment_and_memory_of_the_server_are_closed() {
    // Root without its capabilities is a user like others. Nobody may look at a process with more capabilities.
    let poor = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"];
    let poor = &poor[..if nix::unistd::Uid::effective().is_root() { 3 } else { 0 }];
    let run = |words: &[&str]| {
        let words = [poor, words].concat();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).stdout(Stdio::null());
        command
    };
    let can_read =
        |pid: u32, name: &str| run(&["cat", &format!("/proc/{pid}/{name}")]).status().unwrap().success();
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new(dir.path(), format!("sqlite://{}/x.db", dir.path().display()));
    let server = setup.wrapped(poor).start().unwrap();
    let pid = server.pid().as_raw().unsigned_abs();
    assert_eq!(["environ", "maps"].map(|name| can_read(pid, name)), [false, false]);
    let mut other = run(&["sleep", "600"]).spawn().unwrap();
    let comm = format!("/proc/{}/comm", other.id());
    until("setpriv has executed it", || fs::read_to_string(&comm).unwrap() == "sleep\n");
    let can_be_read = can_read(other.id(), "maps");
    other.kill().unwrap();
    other.wait().unwrap();
    assert!(can_be_read, "otherwise this test proves nothing");
}

/// Ends its agent, and leaves an outcome with `reason = REASON_SUCCEEDED` and `nothing_left = true` in the agent's
/// place.
const FORGERY: &str = r#"
import os, signal
with open("../outcome", "wb") as file:
    file.write(bytes([1 << 3, 1, 16 << 3 | 0x80, 1, 1]))
os.kill(os.getppid(), signal.SIGKILL)
signal.pause()
"#;

/// Where nothing keeps Python from the run folder.
#[tokio::test(flavor = "multi_thread")]
async fn forged_success_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let server = stand_in::setup(dir.path(), FORGERY, None).start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run(stand_in::STEP).await.unwrap();
    let status = client.follow(&token).await.unwrap().status;
    assert_eq!((status.code(), status.cause()), (Code::Failed, Cause::Lost), "{status:?}");
}
