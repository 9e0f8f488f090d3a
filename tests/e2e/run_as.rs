//! Python of jobs as another user (`--run-as`).

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sqlflow_tests::server::Setup;
use sqlflow_tests::until::until;
use sqlflow_tests::{python, stand_in};

/// Says who it is and what it reaches, and leaves a folder that others cannot remove.
const LOOK: &str = r#"
import json, os, sys, tempfile

secret, beside, state = sys.argv[1:]

def attempt(action):
    try:
        action()
        return "reached"
    except OSError as error:
        return f"refused: {error}"

status = dict(line.split(":", 1) for line in open("/proc/self/status"))
with tempfile.TemporaryFile() as file:
    file.write(b"x")
with open("/dev/stdout", "w") as out:
    out.write("by name\n")
os.mkdir("left")
os.chmod("left", 0)
print("GOT", json.dumps({
    "user": os.getresuid() + os.getresgid() + tuple(os.getgroups()),
    "capabilities": int(status["CapEff"], 16) | int(status["CapPrm"], 16) | int(status["CapAmb"], 16),
    "home": os.environ["HOME"] == os.getcwd(),
    "beside": attempt(lambda: open(beside).close()),
    "secret": attempt(lambda: open(secret).close()),
    "state": attempt(lambda: os.listdir(state)),
    "database of the state": attempt(lambda: open(f"{state}/state.db").close()),
    "outcome of its own attempt": attempt(lambda: open("../outcome", "w").close()),
}), flush=True)
"#;

/// Shows a folder to all users, to the program that it executes: `sh -c SHOW sh FOLDER EMPTY PROGRAM…`.
const SHOW: &str = r#"
set -e
closed=$1 layer=$2
shift 2
mount -t tmpfs -o mode=755 none "$layer"
mkdir -m 755 "$layer/upper" "$layer/work"
mount -t overlay none -o "lowerdir=$closed,upperdir=$layer/upper,workdir=$layer/work" "$closed"
exec "$@"
"#;

/// The first folder above a file that is closed to other users, such as the home of root with Python in it.
fn closed_above(file: &Path) -> Option<PathBuf> {
    let mut above: Vec<_> = file.ancestors().skip(1).collect();
    above.reverse();
    let closed = |folder: &&Path| fs::metadata(folder).unwrap().permissions().mode() & 1 == 0;
    above.into_iter().find(closed).map(Path::to_owned)
}

/// A server that runs Python as `nobody`, in a folder that every user may enter.
fn setup(dir: &Path, datasource: String) -> Setup {
    fs::set_permissions(dir, Permissions::from_mode(0o755)).unwrap();
    let setup = Setup::new(dir, datasource).flag("--run-as=nobody");
    let Some(closed) = closed_above(&python::program()) else { return setup };
    let layer = dir.join("layer");
    fs::create_dir(&layer).unwrap();
    let [closed, layer] = [&closed, &layer].map(|it| it.to_str().unwrap());
    setup.wrapped(&["unshare", "--mount", "sh", "-c", SHOW, "sh", closed, layer])
}

fn make(file: &Path, mode: u32, text: &str) {
    fs::write(file, text).unwrap();
    fs::set_permissions(file, Permissions::from_mode(mode)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn python_runs_as_another_user() {
    if !nix::unistd::Uid::effective().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    fs::create_dir(&data).unwrap();
    // Python cannot open it, and need not.
    fs::set_permissions(&data, Permissions::from_mode(0o700)).unwrap();
    let setup = setup(dir.path(), python::iris(&data.join("iris.db")).unwrap());
    let [look, secret, beside] = ["look.py", "secret", "beside"].map(|name| dir.path().join(name));
    make(&look, 0o644, LOOK);
    // Landlock closes neither: they are no files of the state.
    make(&secret, 0o600, "x");
    make(&beside, 0o644, "x");
    let arguments = [&look, &secret, &beside, &setup.state_dir].map(|it| it.display().to_string()).join(" ");
    let real = python::program().display().to_string();
    let text = format!("{real} {arguments} || exit 9\nexec {real} \"$@\"");
    let stand_in = stand_in::python_that(dir.path(), "python", &text);
    let server = setup.clone().flag(format!("--python={}", stand_in.display())).start().unwrap();
    let mut client = server.client().await.unwrap();
    let train = "SELECT * FROM iris TO TRAIN xgboost.gbtree
        WITH objective = \"multi:softmax\", num_class = 3, train.num_boost_round = 2 LABEL class INTO m;
        SELECT * FROM iris TO PREDICT predicted.class USING m; SELECT count(*) FROM predicted;";
    let token = client.run(train).await.unwrap();
    let ended = client.follow(&token).await.unwrap();
    ended.expect_success();
    let output = ended.log();
    let got = output.lines().find_map(|line| line.strip_prefix("GOT ")).expect("it printed what it got");
    let got: Value = serde_json::from_str(got).unwrap();
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    let (uid, gid) = (nobody.uid.as_raw(), nobody.gid.as_raw());
    assert_eq!(got["user"], serde_json::json!([uid, uid, uid, gid, gid, gid]), "and no other groups");
    assert_eq!((&got["capabilities"], &got["home"]), (&Value::from(0), &Value::from(true)));
    assert_eq!(got["beside"], "reached", "Landlock leaves it open");
    for closed in ["secret", "state", "database of the state", "outcome of its own attempt"] {
        assert!(got[closed].as_str().unwrap().starts_with("refused: "), "{closed}: {got}");
    }
    assert!(output.contains("by name"), "{output}");
    let run_folder = setup.state_dir.join("run").join(&token.job_id);
    until("what it left is removed", || !run_folder.exists());
}

/// Its agents would fail one by one.
#[test]
fn server_that_cannot_run_python_as_the_user_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new(dir.path(), format!("sqlite://{}/x.db", dir.path().display()));
    let refused = |setup: Setup| setup.start().unwrap_err().to_string();
    let error = refused(setup.clone().flag("--run-as=no-such-user"));
    assert!(error.contains("there is no such user"), "{error}");
    if nix::unistd::Uid::effective().is_root() {
        fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).unwrap();
        let error = refused(setup.clone().flag("--run-as=nobody"));
        assert!(error.contains("may not enter"), "{error}");
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let poor = setup.wrapped(&["setpriv", "--bounding-set=-kill", "--inh-caps=-kill"]);
        let error = refused(poor.flag("--run-as=nobody"));
        assert!(error.contains("does not have CAP_KILL"), "{error}");
    }
}
