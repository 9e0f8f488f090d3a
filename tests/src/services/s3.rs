//! An object store that speaks S3.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use super::{LOOPBACK, Service, free_port, free_port_in, get, tool, wait_until};

/// SeaweedFS, which speaks S3.
#[derive(Debug)]
pub struct S3 {
    /// Port in `http://127.0.0.1:<port>`.
    pub port: u16,
    /// The process.
    pub service: Service,
    /// Logs, and what it stores.
    pub dir: tempfile::TempDir,
}

/// The identity with all permissions.
pub const S3_KEY: (&str, &str) = ("key-of-the-tests", "secret-of-the-tests");

impl S3 {
    /// The instance that all tests of this program share.
    pub fn shared() -> &'static Self {
        static SHARED: LazyLock<S3> = LazyLock::new(S3::start);
        &SHARED
    }

    /// Starts one without a bucket.
    pub fn start() -> Self {
        Self::start_within(tempfile::tempdir().expect("a temporary folder can be made"), &[])
    }

    /// The same on a disk of this many megabytes, mounted at [`Self::data`] for the service only.
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
        std::fs::write(&config, identities.to_string()).expect("the test owns the folder");
        let data = data_of(&dir);
        std::fs::create_dir(&data).expect("the test owns the folder");
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
        for service in ["master", "volume", "filer"] {
            command.arg(format!("-{service}.port={}", low_port()));
        }
        let log = dir.path().join("log");
        let service = Service::start(&mut command, &log);
        wait_until("SeaweedFS", &service, &log, || {
            get((LOOPBACK, port), "/status").starts_with("HTTP/1.0 200")
        });
        Self { port, service, dir }
    }

    /// Its data folder, as the service sees it.
    pub fn data(&self) -> PathBuf {
        let within = data_of(&self.dir);
        Path::new(&format!("/proc/{}/root", self.service.pid))
            .join(within.strip_prefix("/").expect("the path is absolute"))
    }

    /// Creates a bucket, so that tests can run in parallel.
    pub fn bucket(&self, name: &str) -> String {
        self.boto(&format!("s3.create_bucket(Bucket='{name}')"));
        name.to_owned()
    }

    /// Runs Python with `s3`, a boto3 client, and returns its output.
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

    /// Environment for the agent and other clients.
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

/// A free port such that its port for gRPC, 10,000 above, is free too.
fn low_port() -> u16 {
    loop {
        let port = free_port_in(LOOPBACK, 10_000..22_000);
        if TcpListener::bind((LOOPBACK, port + 10_000)).is_ok() {
            return port;
        }
    }
}
