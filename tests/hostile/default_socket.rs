//! The socket that servers and clients use without being told to.

use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use sqlflow_tests::access::as_nobody;
use sqlflow_tests::server::{Setup, program};

const NOBODY: u32 = 65534;
/// A network of its own: the usual port of this machine may be another server's.
const OWN_NETWORK: [&str; 2] = ["unshare", "--net"];

/// Listens where a server with this folder would, and prints the beginning of what each client sends.
const THIEF: &str = "import os, socket, sys
folder = sys.argv[1] + '/sqlflow'
os.mkdir(folder)
server = socket.socket(socket.AF_UNIX)
server.bind(folder + '/server.sock')
server.listen()
print('ready', flush=True)
while True:
    client, _ = server.accept()
    print(client.recv(16), flush=True)
    client.close()";

fn folder(dir: &Path, name: &str, mode: u32) -> PathBuf {
    let folder = dir.join(name);
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, Permissions::from_mode(mode)).unwrap();
    folder
}

fn setup(dir: &Path, name: &str) -> Setup {
    Setup::new(&dir.join(name), format!("sqlite://{}/x.db", dir.display()))
}

/// `sqlflowctl list` without the address of a server, executed by `wrapper`.
fn list(wrapper: &[&str], home: &Path, runtime: Option<&Path>) -> Output {
    let (first, rest) = wrapper.split_first().unwrap();
    let mut command = Command::new(first);
    command.args(rest).arg(program("sqlflowctl")).arg("list").env_clear();
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", home);
    command.envs(runtime.map(|folder| ("XDG_RUNTIME_DIR", folder)));
    command.output().unwrap()
}

#[test]
fn server_and_clients_of_one_user_find_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = folder(dir.path(), "runtime", 0o700);
    let server =
        setup(dir.path(), "a").env("XDG_RUNTIME_DIR", runtime.display().to_string()).start().unwrap();
    let listed = list(&OWN_NETWORK, dir.path(), Some(&runtime));
    assert!(listed.status.success(), "by the socket, for the network has no server: {listed:?}");
    server.stop().unwrap();
    // As a service, or in a container: both know no such folder, and take the usual port.
    let network = [&OWN_NETWORK[..], &["sh", "-c", "ip link set lo up && exec \"$@\"", "sh"]].concat();
    let server = setup(dir.path(), "b").wrapped(&network).flag("--listen=127.0.0.1:50051").start().unwrap();
    let of_server = format!("--net=/proc/{}/ns/net", server.pid());
    let listed = list(&["nsenter", of_server.as_str()], dir.path(), None);
    assert!(listed.status.success(), "{listed:?}");
}

/// `sudo -E` and `su` keep the variable of the user before. In some containers it is a folder for all.
#[test]
fn folder_of_others_has_no_default_socket() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    let [other, empty] = ["other", "empty"].map(|name| folder(dir.path(), name, 0o700));
    for folder in [&other, &empty] {
        chown(folder, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let shared = folder(dir.path(), "shared", 0o1777);
    let thieves = [&other, &shared].map(|folder| {
        let mut thief = as_nobody("python3");
        thief.env("PATH", "/usr/bin:/bin").args(["-c", THIEF]).arg(folder).stdout(Stdio::piped());
        let mut thief = thief.spawn().unwrap();
        let mut said = BufReader::new(thief.stdout.take().unwrap()).lines().map(Result::unwrap);
        assert_eq!(said.next().unwrap(), "ready");
        (thief, said)
    });
    for ((mut thief, mut said), folder) in thieves.into_iter().zip([&other, &shared]) {
        let listed = list(&OWN_NETWORK, dir.path(), Some(folder));
        let error = String::from_utf8_lossy(&listed.stderr);
        assert_eq!(listed.status.code(), Some(3), "{listed:?}");
        assert!(error.contains("127.0.0.1:50051"), "{error}");
        let mut own = UnixStream::connect(folder.join("sqlflow/server.sock")).unwrap();
        own.write_all(b"own").unwrap();
        assert_eq!(said.next().unwrap(), "b'own'", "nobody else has connected");
        thief.kill().unwrap();
        thief.wait().unwrap();
    }
    for (number, folder) in [&empty, &shared].into_iter().enumerate() {
        let runtime = folder.display().to_string();
        let setup = setup(dir.path(), &format!("server-{number}")).env("XDG_RUNTIME_DIR", runtime);
        setup.start().unwrap().stop().unwrap();
        let made: Vec<_> = fs::read_dir(folder).unwrap().map(|it| it.unwrap()).collect();
        assert!(made.iter().all(|it| it.metadata().unwrap().uid() == NOBODY), "{made:?}");
    }
}
