//! The commands of README and docs, unchanged, in the order of the pages and with a home folder of their own. A block
//! of commands that no test runs fails a test.

use std::fs;
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use sqlflow_tests::documents::{blocks, commands};
use sqlflow_tests::http;
use sqlflow_tests::python::{self, repository};
use sqlflow_tests::server::program;

/// The test that runs a block of commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    /// A test of this file.
    Here,
    /// This file of tests, or target of `make`.
    Elsewhere(&'static str),
    /// None, for this reason.
    Nobody(&'static str),
}

const CLIENTS_OF_THE_PAGE: By = By::Elsewhere("clients/python/tests/test_writing_a_client.py");

/// Each block of commands: its page, a text that is only in this block, and its test.
const BLOCKS: [(&str, &str, By); 27] = [
    ("README.md", "make quickstart", By::Elsewhere("make test")),
    ("README.md", "make install", By::Here),
    ("README.md", "SQLFLOW_SERVER=own", By::Here),
    ("README.md", "sqlflow-server --state-dir", By::Here),
    ("README.md", "sqlflowctl run -f", By::Here),
    ("docs/storage.md", "sqlflowctl models show", By::Here),
    ("docs/agent-in-your-image.md", "make agent", By::Here),
    ("docs/agent-in-your-image.md", "--output out=file:///models", By::Here),
    ("docs/running-a-server.md", "sqlflow-server doctor", By::Elsewhere("tests/e2e/doctor.rs")),
    ("docs/observing.md", "sqlflowctl run -f program.sql", By::Elsewhere("tests/observe/traces.rs")),
    ("docs/observing.md", "OTEL_LOGS_EXPORTER=otlp", By::Elsewhere("tests/observe/exported.rs")),
    ("docs/writing-a-client.md", "--python_out", CLIENTS_OF_THE_PAGE),
    ("docs/writing-a-client.md", "--go_out", CLIENTS_OF_THE_PAGE),
    ("docs/writing-a-client.md", "mvn", CLIENTS_OF_THE_PAGE),
    ("docs/kubernetes.md", "docker build", By::Elsewhere("tests/kubernetes/docs_manifests.rs")),
    ("docs/kubernetes.md", "port-forward", By::Elsewhere("tests/kubernetes/manifests.rs")),
    ("docs/security.md", "sqlflow-server token", By::Elsewhere("tests/hostile/documented.rs")),
    ("docs/kubernetes.md", "cat >> manifests/overlays", By::Elsewhere("tests/kubernetes/docs_manifests.rs")),
    (
        "docs/kubernetes.md",
        "manifests/certificates.sh sqlflow\n",
        By::Elsewhere("tests/kubernetes/certificates.rs"),
    ),
    ("docs/kubernetes.md", "kubectl drain", By::Elsewhere("tests/kubernetes/node.rs")),
    ("docs/kubernetes.md", "finalizers", By::Elsewhere("tests/kubernetes/without_server.rs")),
    ("docs/sidecar.md", "clusterrolebinding", By::Elsewhere("tests/kubernetes/sidecar.rs")),
    ("docs/sidecar.md", "manifests/overlays/notebook", By::Elsewhere("tests/kubernetes/sidecar.rs")),
    ("images/submitter/README.md", "pip install --no-deps", By::Nobody("make install does the same")),
    ("images/submitter/README.md", "pytest", By::Elsewhere("make lint test-submitter")),
    ("CONTRIBUTING.md", "make build venv", By::Elsewhere("make test")),
    ("CONTRIBUTING.md", "SQLFLOW_TEST_S3_PYTHON", By::Nobody("make test sets the same variables")),
];

fn pages() -> Vec<String> {
    let names = |folder: &str| {
        let entries = fs::read_dir(repository().join(folder)).unwrap();
        entries.map(|it| it.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
    };
    let docs = names("docs").into_iter().map(|name| format!("docs/{name}"));
    let images = names("images").into_iter().map(|name| format!("images/{name}/README.md"));
    let all = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "manifests/README.md"].map(str::to_owned);
    let all = all.into_iter().chain(docs).chain(images);
    all.filter(|page| page.ends_with(".md") && repository().join(page).exists()).collect()
}

#[test]
fn every_documented_command_has_a_test() {
    let mut seen = Vec::new();
    for page in pages() {
        for block in blocks(&page, "sh") {
            let known = BLOCKS.iter().position(|(of, says, _)| *of == page && block.contains(says));
            let known = known.unwrap_or_else(|| panic!("{page}: no test runs this block:\n{block}"));
            seen.push(known);
        }
    }
    for (place, (page, says, by)) in BLOCKS.iter().enumerate() {
        assert!(seen.contains(&place), "{page} no longer contains: {says}");
        match by {
            By::Here => {}
            By::Elsewhere(test) if test.starts_with("make ") => {}
            By::Elsewhere(test) => assert!(repository().join(test).exists(), "{test}"),
            By::Nobody(reason) => assert!(!reason.is_empty()),
        }
    }
}

/// A user with a home folder, and free ports instead of the default ones.
struct Person {
    home: tempfile::TempDir,
    /// For clients and for web pages.
    ports: [u16; 2],
}

impl Person {
    fn new() -> Self {
        // Both are bound until both are known.
        let free = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        Self { home: tempfile::tempdir().unwrap(), ports: free.map(|it| it.local_addr().unwrap().port()) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Commands in bash, which ends at the first failure.
    fn bash(&self, commands: &str, folder: &Path) -> Command {
        let mut bash = Command::new("bash");
        bash.args(["-euo", "pipefail", "-c", commands]).current_dir(folder).env("HOME", self.home.path());
        // Tools of the user who runs the tests.
        let home = std::env::var("HOME").unwrap();
        for (name, folder) in [
            ("PYENV_ROOT", ".pyenv"),
            ("RUSTUP_HOME", ".rustup"),
            ("CARGO_HOME", ".cargo"),
            ("PIP_CACHE_DIR", ".cache/pip"),
        ] {
            if std::env::var_os(name).is_none() {
                bash.env(name, format!("{home}/{folder}"));
            }
        }
        for name in [
            "VIRTUAL_ENV",
            "PYTHONPATH",
            "XDG_DATA_HOME",
            "XDG_STATE_HOME",
            "SQLFLOW_DATASOURCE",
            "SQLFLOW_PYTHON",
            "PREFIX",
        ] {
            bash.env_remove(name);
        }
        let [clients, pages] = self.ports;
        let path = std::env::var("PATH").unwrap();
        bash.env("PATH", format!("{}:{path}", self.path(".local/bin").display()))
            // Installs the programs of this test, without a build.
            .env("INSTALL_PROGRAMS", program("sqlflow-server").parent().unwrap())
            .env("SQLFLOW_LISTEN", format!("localhost:{clients}"))
            .env("SQLFLOW_HTTP_LISTEN", format!("localhost:{pages}"))
            .env("SQLFLOW_SERVER", format!(":{clients}"))
            .stdin(Stdio::null());
        bash
    }

    fn run(&self, commands: &str, folder: &Path) -> String {
        let Output { status, stdout, stderr } = self.bash(commands, folder).output().unwrap();
        let [stdout, stderr] = [stdout, stderr].map(|it| String::from_utf8(it).unwrap());
        assert!(status.success(), "{status}\n{commands}\n{stdout}\n{stderr}");
        stdout
    }

    /// Starts a server by the page's commands, and waits until it is ready.
    fn serve(&self, commands: &str) -> Served {
        let mut bash = self.bash(commands, &repository());
        let process = bash.process_group(0).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let mut served = Served(process);
        let pages = format!("127.0.0.1:{}", self.ports[1]);
        while std::net::TcpStream::connect(&pages).is_err() {
            assert!(served.0.try_wait().unwrap().is_none(), "the server ended: {commands}");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let ready = http::get(&pages, "/readyz");
        assert!(ready.body.contains("launcher: ok"), "{}", ready.body);
        served
    }
}

/// A server and the shell that started it.
struct Served(Child);

impl Drop for Served {
    fn drop(&mut self) {
        let group = Pid::from_raw(i32::try_from(self.0.id()).unwrap());
        let _ = killpg(group, Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

#[test]
fn readme_commands_install_train_and_uninstall() {
    let person = Person::new();
    let clone = repository();
    let said = person.run(&commands("README.md", "make install"), &clone);
    assert!(said.contains("SQLFlow is installed in"), "{said}");
    for file in [
        "bin/sqlflow-agent",
        "bin/sqlflow-data",
        "share/man/man1/sqlflowctl-run.1",
        "share/bash-completion/completions/sqlflowctl",
    ] {
        assert!(person.path(".local").join(file).is_file(), "{file}");
    }
    // Also modules that the installation did not import.
    let venv = person.path(".local/lib/sqlflow/venv");
    let import =
        format!("'{}/bin/python' -Bv -c 'import sqlflow_submitter.console, nanoarrow' 2>&1", venv.display());
    let said = person.run(&import, person.home.path());
    python::expect_only_bytecode(&said, &[&venv.display().to_string()]);

    // The first commands after the installation. Their server ends by itself.
    let own = commands("README.md", "SQLFLOW_SERVER=own");
    let said = person.run(&format!("export SQLFLOW_EXIT_WHEN_IDLE=5s\n{own}"), &clone);
    assert!(said.contains(" accuracy_score |   0.9\n"), "{said}");

    let served = person.serve(&commands("README.md", "sqlflow-server --state-dir"));
    let said = person.run(&commands("README.md", "sqlflowctl run -f"), &clone);
    // Of the 30 rows that were held out. On training rows the accuracy would be 1.
    assert!(said.contains(" accuracy_score |   0.9\n"), "{said}");
    assert!(said.contains("\nsepal_length,sepal_width,petal_length,petal_width,class\n"), "as CSV: {said}");
    assert!(said.contains("\nstate     SUCCEEDED\n") && said.contains("\n iris_model | "), "{said}");

    // The page's SQL, on the same table.
    fs::write(person.path("page.sql"), blocks("README.md", "sql").concat()).unwrap();
    let said = person.run("sqlflowctl run -f ~/page.sql", &clone);
    assert!(said.contains("objective = \"multi:softmax\""), "SHOW TRAIN: {said}");
    assert!(said.contains(" accuracy_score | 0.96666666666666"), "29 of 30: {said}");
    assert!(!said.contains("\\n"), "line breaks of the SQL are escaped: {said}");

    let models = format!("file://{}/sqlflow-state/models", person.home.path().display());
    let block = commands("docs/storage.md", "sqlflowctl models show");
    let block = block.replace("s3://bucket/models", &models).replace("team/flowers", "flowers");
    let said = person.run(&block, person.home.path());
    assert!(said.contains("\nestimator xgboost.gbtree\n"), "{said}");
    assert!(person.path("flowers/flowers.tar.gz").is_file() && person.path("flowers/sqlflow.gob").is_file());
    assert!(!person.path("sqlflow-state/models/flowers").exists(), "deleted");
    drop(served);

    let said = person.run("make uninstall", &clone);
    let tokens = person.path(".local/state/sqlflow");
    assert!(said.contains(&format!("kept: {}, the tokens", tokens.display())), "{said}");
    assert!(said.contains(&format!("rm -r '{}'", tokens.display())), "{said}");
    assert!(tokens.join("tokens").is_file(), "the user's tokens are kept");
    let own = person.path(".local/share/sqlflow/own");
    assert!(said.contains(&format!("rm -r '{}'", own.display())), "{said}");
    assert!(own.join("state/models/iris_model").is_dir(), "the user's models are kept");
    for folder in ["bin", "lib", "share/man", "share/bash-completion"] {
        assert!(!person.path(".local").join(folder).exists(), "{folder} is not empty");
    }
    assert!(person.path("sqlflow-state/state.db").is_file(), "the state is kept");
}

#[test]
fn documented_commands_install_and_run_the_agent() {
    let person = Person::new();
    let agent = program("sqlflow-agent").display().to_string();
    let bin = person.path("bin").display().to_string();
    let block = commands("docs/agent-in-your-image.md", "make agent")
        .replace("make agent\n", "")
        .replace("sudo ", "")
        .replace("\"$(make -s agent-path)\"", &agent)
        .replace("/usr/local/bin", &bin);
    fs::create_dir_all(person.path("out")).unwrap();
    fs::write(person.path("out/weights"), "kept from the run before").unwrap();
    fs::create_dir_all(&bin).unwrap();
    let output = person.bash(&format!("PATH={bin}:$PATH\n{block}"), person.home.path()).output().unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(3), &b"hello\n"[..]), "{output:?}");

    let models = person.path("models").display().to_string();
    let block =
        commands("docs/agent-in-your-image.md", "--output out=file:///models").replace("/models", &models);
    fs::create_dir_all(&models).unwrap();
    person.run(&format!("PATH={bin}:$PATH\n{block}"), person.home.path());
    assert!(person.path("models/run-17.tar.gz").is_file());
}
