//! Real services that tests talk to, one of each for a test program; they end with it.

#![expect(clippy::print_stderr, reason = "what a failed test shows")]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// Enough for a JVM on a busy machine; a service that needs longer does not come.
const START: Duration = Duration::from_secs(120);

/// What `scripts/test-tool.sh` makes, cached outside the clone.
pub fn tool(name: &str) -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/test-tool.sh");
    let output = Command::new(script).arg(name).stderr(Stdio::inherit()).output().expect("the script runs");
    assert!(output.status.success(), "scripts/test-tool.sh {name} failed");
    String::from_utf8(output.stdout).expect("a path is text").trim_end().into()
}

const LOOPBACK: &str = "127.0.0.1";

/// A port of loopback that nobody uses.
pub fn free_port() -> u16 {
    free_port_of(LOOPBACK)
}

/// The same of another address of this machine.
pub fn free_port_of(ip: &str) -> u16 {
    let listener = TcpListener::bind((ip, 0)).expect("the address is there");
    listener.local_addr().expect("it is bound").port()
}

/// A process that ends with this one.
#[derive(Debug)]
pub struct Service {
    /// For `kill`.
    pub pid: i32,
}

impl Service {
    /// Starts it with its output in `log`.
    pub fn start(command: &mut Command, log: &Path) -> Self {
        let log = std::fs::File::create(log).expect("the log can be made");
        // The kernel ends it with the thread that started it; so that thread stays.
        let mut tied = Command::new("setpriv");
        tied.args(["--pdeathsig", "KILL"]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            tied.env(name, value.unwrap_or_default());
        }
        tied.stdin(Stdio::null()).stdout(log.try_clone().expect("a file can be shared")).stderr(log);
        let (send, started) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut child = tied.spawn().expect("the service starts");
            send.send(child.id()).expect("somebody waits");
            child.wait().expect("it can be waited for")
        });
        let pid = started.recv().expect("the service starts");
        Self { pid: i32::try_from(pid).expect("pids are positive i32") }
    }
}

fn wait_until(what: &str, log: &Path, mut is_ready: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_ready() {
        if begun.elapsed() > START {
            eprintln!("{}", std::fs::read_to_string(log).unwrap_or_default());
            panic!("{what} did not start");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// `GET path`, as text; empty when nobody answers.
pub fn get(address: (&str, u16), path: &str) -> String {
    let ask = || {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text).map(|_| text)
    };
    ask().unwrap_or_default()
}

/// A namenode and a datanode of Hadoop.
#[derive(Debug)]
pub struct Hdfs {
    /// Where it listens.
    pub ip: String,
    /// Of `hdfs://127.0.0.1:<port>`.
    pub port: u16,
    /// Of `webhdfs://127.0.0.1:<port>`.
    pub http_port: u16,
    /// The process.
    pub namenode: Service,
    /// The process.
    pub datanode: Service,
    /// Logs, and what HDFS stores.
    pub dir: tempfile::TempDir,
    jars: PathBuf,
}

impl Hdfs {
    /// The one that this program's tests share.
    pub fn shared() -> &'static Self {
        static SHARED: LazyLock<Hdfs> = LazyLock::new(Hdfs::start);
        &SHARED
    }

    /// Starts one on loopback and waits until it can be written to.
    pub fn start() -> Self {
        Self::start_on(LOOPBACK)
    }

    /// Starts one on this address.
    pub fn start_on(ip: &str) -> Self {
        let jars = tool("hadoop");
        let dir = tempfile::tempdir().expect("a temporary folder can be made");
        let (port, http_port) = (free_port_of(ip), free_port_of(ip));
        let site = |settings: &[(&str, String)]| {
            let property = |(name, value): &(&str, String)| {
                format!("<property><name>{name}</name><value>{value}</value></property>")
            };
            let properties: String = settings.iter().map(property).collect();
            format!("<configuration>{properties}</configuration>")
        };
        let conf = dir.path().join("conf");
        std::fs::create_dir(&conf).expect("the folder is ours");
        let write =
            |name: &str, text: String| std::fs::write(conf.join(name), text).expect("the folder is ours");
        write("core-site.xml", site(&[("fs.defaultFS", format!("hdfs://{ip}:{port}"))]));
        let folder = |name: &str| format!("file://{}/{name}", dir.path().display());
        let any_port = || format!("{ip}:0");
        write(
            "hdfs-site.xml",
            site(&[
                ("dfs.namenode.name.dir", folder("name")),
                ("dfs.datanode.data.dir", folder("data")),
                ("dfs.replication", "1".to_owned()),
                ("dfs.namenode.http-address", format!("{ip}:{http_port}")),
                ("dfs.datanode.address", any_port()),
                ("dfs.datanode.http.address", any_port()),
                ("dfs.datanode.ipc.address", any_port()),
                ("dfs.heartbeat.interval", "1".to_owned()),
                ("dfs.namenode.heartbeat.recheck-interval", "1000".to_owned()),
            ]),
        );
        let log = |name: &str| dir.path().join(name);
        let formatted = java(&jars, &conf)
            .args(["org.apache.hadoop.hdfs.server.namenode.NameNode", "-format", "-nonInteractive"])
            .output()
            .expect("java is installed");
        assert!(formatted.status.success(), "{}", String::from_utf8_lossy(&formatted.stderr));
        let namenode = Service::start(
            java(&jars, &conf).arg("org.apache.hadoop.hdfs.server.namenode.NameNode"),
            &log("namenode.log"),
        );
        let datanode = start_datanode(&jars, &conf, &log("datanode.log"));
        let hdfs = Self { ip: ip.to_owned(), port, http_port, namenode, datanode, jars, dir };
        hdfs.wait_until_ready();
        hdfs
    }

    fn wait_until_ready(&self) {
        wait_until("HDFS", &self.dir.path().join("namenode.log"), || {
            let state =
                get((&self.ip, self.http_port), "/jmx?qry=Hadoop:service=NameNode,name=FSNamesystemState");
            state.contains("\"NumLiveDataNodes\" : 1") && state.contains("\"FSState\" : \"Operational\"")
        });
    }

    /// Starts the datanode again after it was killed.
    pub fn restart_datanode(&mut self) {
        let dir = self.dir.path();
        self.datanode = start_datanode(&self.jars, &dir.join("conf"), &dir.join("datanode.log"));
        self.wait_until_ready();
    }

    /// `hdfs dfs …`, `hdfs dfsadmin …`: Hadoop's own client. Gives its exit code and both outputs.
    pub fn command(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = self.client(arguments).output().expect("java is installed");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    }

    /// The same for a shell. No argument has a blank.
    pub fn command_line(&self, arguments: &[&str]) -> String {
        let command = self.client(arguments);
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        // The class path has a star for Java, not for the shell.
        words.map(|word| format!("'{}'", word.to_string_lossy())).collect::<Vec<_>>().join(" ")
    }

    fn client(&self, arguments: &[&str]) -> Command {
        let class = match arguments[0] {
            "dfs" => "org.apache.hadoop.fs.FsShell",
            "dfsadmin" => "org.apache.hadoop.hdfs.tools.DFSAdmin",
            other => panic!("no such command: {other}"),
        };
        let mut command = java(&self.jars, &self.dir.path().join("conf"));
        command.arg(class).args(&arguments[1..]);
        command
    }
}

fn start_datanode(jars: &Path, conf: &Path, log: &Path) -> Service {
    Service::start(java(jars, conf).arg("org.apache.hadoop.hdfs.server.datanode.DataNode"), log)
}

fn java(jars: &Path, conf: &Path) -> Command {
    let mut command = Command::new("java");
    command.args(["-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]);
    for package in ["java.lang", "java.util"] {
        command.arg(format!("--add-opens=java.base/{package}=ALL-UNNAMED"));
    }
    command.arg("-cp").arg(format!("{0}:{1}:{1}/*", conf.display(), jars.display()));
    command
}

/// A tracing backend that keeps spans in memory.
#[derive(Debug)]
pub struct Jaeger {
    /// Of the collector, by OTLP over gRPC: `http://127.0.0.1:<port>`.
    pub port: u16,
    /// Of its query API.
    pub query_port: u16,
    /// The process.
    pub service: Service,
    /// Its log.
    pub dir: tempfile::TempDir,
}

impl Jaeger {
    /// The one that this program's tests share.
    pub fn shared() -> &'static Self {
        static SHARED: LazyLock<Jaeger> = LazyLock::new(|| Jaeger::start_on(LOOPBACK));
        &SHARED
    }

    /// Starts one on this address of this machine.
    pub fn start_on(ip: &str) -> Self {
        let jaeger = tool("jaeger");
        let dir = tempfile::tempdir().expect("a temporary folder can be made");
        let [port, query_port, query_grpc_port] = std::array::from_fn(|_| free_port_of(ip));
        let config = serde_json::json!({
            "service": {
                "extensions": ["jaeger_storage", "jaeger_query"],
                "pipelines": { "traces": { "receivers": ["otlp"], "exporters": ["jaeger_storage_exporter"] } },
                "telemetry": { "metrics": { "level": "none" } },
            },
            "extensions": {
                "jaeger_storage": { "backends": { "memory": { "memory": { "max_traces": 10000 } } } },
                "jaeger_query": {
                    "storage": { "traces": "memory" },
                    "http": { "endpoint": format!("{ip}:{query_port}") },
                    "grpc": { "endpoint": format!("{ip}:{query_grpc_port}") },
                },
            },
            "receivers": { "otlp": { "protocols": { "grpc": { "endpoint": format!("{ip}:{port}") } } } },
            "exporters": { "jaeger_storage_exporter": { "trace_storage": "memory" } },
        });
        let file = dir.path().join("config.json");
        std::fs::write(&file, config.to_string()).expect("the folder is ours");
        let log = dir.path().join("log");
        let service = Service::start(Command::new(&jaeger).arg("--config").arg(&file), &log);
        let ready = || get((ip, query_port), "/api/services").starts_with("HTTP/1.0 200");
        wait_until("Jaeger", &log, ready);
        Self { port, query_port, service, dir }
    }
}

/// SeaweedFS, which speaks S3.
#[derive(Debug)]
pub struct S3 {
    /// Of `http://127.0.0.1:<port>`.
    pub port: u16,
    /// The process.
    pub service: Service,
    /// Logs, and what it stores.
    pub dir: tempfile::TempDir,
}

/// The identity that may do everything.
pub const S3_KEY: (&str, &str) = ("key-of-the-tests", "secret-of-the-tests");

impl S3 {
    /// The one that this program's tests share.
    pub fn shared() -> &'static Self {
        static SHARED: LazyLock<S3> = LazyLock::new(S3::start);
        &SHARED
    }

    /// Starts one without a bucket.
    pub fn start() -> Self {
        Self::start_within(tempfile::tempdir().expect("a temporary folder can be made"), &[])
    }

    /// The same on a disk of so many megabytes, which is mounted at [`Self::data`] for the service alone.
    pub fn start_on_small_disk(megabytes: u32) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder can be made");
        let script =
            format!("mount -t tmpfs -o size={megabytes}m none {} && exec \"$@\"", data_of(&dir).display());
        Self::start_within(dir, &["unshare", "-m", "sh", "-c", &script, "sh"])
    }

    fn start_within(dir: tempfile::TempDir, wrapper: &[&str]) -> Self {
        let weed = tool("weed");
        let identities = serde_json::json!({"identities": [{
            "name": "tests",
            "credentials": [{"accessKey": S3_KEY.0, "secretKey": S3_KEY.1}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }]});
        let config = dir.path().join("identities.json");
        std::fs::write(&config, identities.to_string()).expect("the folder is ours");
        let data = data_of(&dir);
        std::fs::create_dir(&data).expect("the folder is ours");
        let port = free_port();
        let weed = weed.to_str().expect("a path is text");
        let mut words = wrapper.iter().chain([&weed]);
        let mut command = Command::new(words.next().expect("one at least"));
        command.args(words);
        command.args(["server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3"]);
        // Each bucket has volumes of its own, which must fit on the disk.
        command.args(["-volume.max=200", "-master.volumeSizeLimitMB=256"]);
        command.arg(format!("-dir={}", data.display()));
        command.arg(format!("-s3.port={port}")).arg(format!("-s3.config={}", config.display()));
        // Its ports of gRPC are 10,000 above, so all must be below 55,536.
        for service in ["master", "volume", "filer"] {
            command.arg(format!("-{service}.port={}", low_port()));
        }
        let log = dir.path().join("log");
        let service = Service::start(&mut command, &log);
        wait_until("SeaweedFS", &log, || get((LOOPBACK, port), "/status").starts_with("HTTP/1.0 200"));
        Self { port, service, dir }
    }

    /// Where it stores things, as it sees it.
    pub fn data(&self) -> PathBuf {
        let within = data_of(&self.dir);
        Path::new(&format!("/proc/{}/root", self.service.pid))
            .join(within.strip_prefix("/").expect("it is whole"))
    }

    /// A bucket of its own, since tests run beside each other.
    pub fn bucket(&self, name: &str) -> String {
        self.boto(&format!("s3.create_bucket(Bucket='{name}')"));
        name.to_owned()
    }

    /// Runs Python with `s3`, a client that is not ours, and gives what it prints.
    pub fn boto(&self, code: &str) -> String {
        let client = format!(
            "import boto3
s3 = boto3.client('s3', endpoint_url='http://127.0.0.1:{}', aws_access_key_id='{}',
    aws_secret_access_key='{}', region_name='us-east-1')
",
            self.port, S3_KEY.0, S3_KEY.1
        );
        let python =
            std::env::var_os("SQLFLOW_TEST_S3_PYTHON").expect("`make test` names a Python with boto3");
        let output = Command::new(python).arg("-c").arg(client + code).output();
        let output = output.expect("Python runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("it prints text")
    }

    /// What the agent and other clients need in their environment.
    pub fn environment(&self) -> [(&'static str, String); 3] {
        [
            ("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", self.port)),
            ("AWS_ACCESS_KEY_ID", S3_KEY.0.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", S3_KEY.1.to_owned()),
        ]
    }
}

fn data_of(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().join("data")
}

fn low_port() -> u16 {
    loop {
        let port = 20_000 + free_port() % 20_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok()
            && TcpListener::bind(("127.0.0.1", port + 10_000)).is_ok()
        {
            return port;
        }
    }
}

/// MariaDB with an empty database `test`, for one user with every right.
#[derive(Debug)]
pub struct Mariadb {
    /// What `sqlflow-server --datasource` takes.
    pub dsn: String,
    /// The process.
    pub service: Service,
    /// Its data.
    pub dir: tempfile::TempDir,
}

/// A password that has what a DSN must quote, and that nobody else prints.
pub const PASSWORD: &str = "pass/w@rd:hunter2";

impl Mariadb {
    /// Starts one on this address.
    pub fn start_on(ip: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder can be made");
        let data = format!("--datadir={}/data", dir.path().display());
        let installed = Command::new("mariadb-install-db")
            .args([
                "--no-defaults",
                &data,
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
                "--user=root",
            ])
            .output()
            .expect("MariaDB is installed: `make test` does that");
        assert!(installed.status.success(), "{}", String::from_utf8_lossy(&installed.stderr));
        let setup = dir.path().join("setup.sql");
        let sql = format!(
            "CREATE DATABASE test CHARACTER SET utf8mb4;\nCREATE USER 'u'@'%' IDENTIFIED BY '{PASSWORD}';\nGRANT ALL ON *.* TO 'u'@'%';\n"
        );
        std::fs::write(&setup, sql).expect("the folder is ours");
        let port = free_port_of(ip);
        let mut command = Command::new("/usr/sbin/mariadbd");
        command.args([
            "--no-defaults",
            &data,
            "--user=root",
            "--skip-name-resolve",
            "--innodb-buffer-pool-size=64M",
        ]);
        command.arg(format!("--socket={}/socket", dir.path().display())).arg(format!("--port={port}"));
        command.arg(format!("--bind-address={ip}")).arg(format!("--init-file={}", setup.display()));
        let log = dir.path().join("log");
        let service = Service::start(&mut command, &log);
        wait_until("MariaDB", &log, || {
            std::fs::read_to_string(&log).is_ok_and(|text| text.contains("ready for connections"))
        });
        let dsn = format!("mysql://u:{PASSWORD}@tcp({ip}:{port})/test?maxAllowedPacket=0");
        Self { dsn, service, dir }
    }
}
