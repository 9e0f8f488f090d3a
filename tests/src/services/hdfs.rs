//! Hadoop's file system: a namenode and a datanode.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use super::{LOOPBACK, Service, free_port_of, get, tool, wait_until};

/// A namenode and a datanode of Hadoop.
#[derive(Debug)]
pub struct Hdfs {
    /// Address.
    pub ip: String,
    /// Port in `hdfs://127.0.0.1:<port>`.
    pub port: u16,
    /// Port in `webhdfs://127.0.0.1:<port>`.
    pub http_port: u16,
    /// The process.
    pub namenode: Service,
    /// The process.
    pub datanode: Service,
    /// Logs, and what HDFS stores.
    pub dir: tempfile::TempDir,
    jars: PathBuf,
}

/// Errors are in the service's log.
const LOG4J: &str = "log4j.rootLogger=WARN,console
log4j.appender.console=org.apache.log4j.ConsoleAppender
log4j.appender.console.target=System.err
log4j.appender.console.layout=org.apache.log4j.PatternLayout
log4j.appender.console.layout.ConversionPattern=%d{ISO8601} %p %c{2}: %m%n
";

impl Hdfs {
    /// The instance that all tests of this program share.
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
        std::fs::create_dir(&conf).expect("the test owns the folder");
        let write = |name: &str, text: String| {
            std::fs::write(conf.join(name), text).expect("the test owns the folder");
        };
        write("core-site.xml", site(&[("fs.defaultFS", format!("hdfs://{ip}:{port}"))]));
        write("log4j.properties", LOG4J.to_owned());
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
        let state =
            || get((&self.ip, self.http_port), "/jmx?qry=Hadoop:service=NameNode,name=FSNamesystemState");
        let log = |name: &str| self.dir.path().join(name);
        wait_until("HDFS's namenode", &self.namenode, &log("namenode.log"), || !state().is_empty());
        wait_until("HDFS's datanode", &self.datanode, &log("datanode.log"), || {
            let state = state();
            state.contains("\"NumLiveDataNodes\" : 1") && state.contains("\"FSState\" : \"Operational\"")
        });
    }

    /// Starts the datanode again after it was killed.
    pub fn restart_datanode(&mut self) {
        let dir = self.dir.path();
        self.datanode = start_datanode(&self.jars, &dir.join("conf"), &dir.join("datanode.log"));
        self.wait_until_ready();
    }

    /// `hdfs dfs …`, `hdfs dfsadmin …`: Hadoop's own client. Returns its exit code and both outputs.
    pub fn command(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = self.client(arguments).output().expect("java is installed");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    }

    /// The same for a shell. No argument has a blank.
    pub fn command_line(&self, arguments: &[&str]) -> String {
        let command = self.client(arguments);
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        // The asterisk in the class path is for Java, not for the shell.
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
