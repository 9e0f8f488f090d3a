//! A folder in each storage, and access to it by the storage's own client.

use std::path::Path;
use std::process::{Command, Stdio};

use sqlflow_tests::agent::{Ended, Exec};
use sqlflow_tests::services::{Hdfs, S3};

/// A folder for models.
#[derive(Debug, Clone, Copy)]
pub enum Place {
    Hdfs(&'static str),
    Webhdfs(&'static str),
    S3(&'static str),
    File(&'static str),
}

impl Place {
    /// All storages; each test names its own folder.
    pub fn all(name: &'static str) -> [Self; 3] {
        [Self::Hdfs(name), Self::Webhdfs(name), Self::S3(name)]
    }

    /// All storages, and a file system.
    pub fn all_and_files(name: &'static str) -> [Self; 4] {
        [Self::File(name), Self::Hdfs(name), Self::Webhdfs(name), Self::S3(name)]
    }

    /// The folder.
    pub fn root(self) -> String {
        let hdfs = || Hdfs::shared();
        match self {
            Self::Hdfs(name) => format!("hdfs://127.0.0.1:{}/native/{name}", hdfs().port),
            Self::Webhdfs(name) => format!("webhdfs://127.0.0.1:{}/web/{name}", hdfs().http_port),
            Self::S3(name) => format!("s3://{name}/some/folder"),
            Self::File(_) => format!("file://{}", self.path()),
        }
    }

    /// `…/m.tar.gz`
    pub fn uri(self) -> String {
        format!("{}/m.tar.gz", self.root())
    }

    /// Prepares it: creates a bucket, or removes an old folder.
    pub fn make(self) {
        match self {
            Self::S3(name) => drop(S3::shared().bucket(name)),
            Self::File(_) if Path::new(&self.path()).exists() => {
                std::fs::remove_dir_all(self.path()).unwrap();
            }
            Self::File(_) | Self::Hdfs(_) | Self::Webhdfs(_) => {}
        }
    }

    fn path(self) -> String {
        match self {
            Self::Hdfs(name) => format!("/native/{name}"),
            Self::Webhdfs(name) => format!("/web/{name}"),
            Self::S3(_) => "some/folder".to_owned(),
            Self::File(name) => format!("{}/{name}", env!("CARGO_TARGET_TMPDIR")),
        }
    }

    /// Environment for clients of the storage.
    pub fn environment(self) -> Vec<(&'static str, String)> {
        match self {
            Self::S3(_) => S3::shared().environment().to_vec(),
            Self::Hdfs(_) | Self::Webhdfs(_) => vec![("HADOOP_USER_NAME", "root".to_owned())],
            Self::File(_) => Vec::new(),
        }
    }

    /// An agent that publishes `out` here.
    pub fn exec(self, out: &Path) -> Exec {
        self.output_of(Exec::new(), out)
    }

    /// The same with another agent.
    pub fn output_of(self, exec: Exec, out: &Path) -> Exec {
        let output = format!("{}={}", out.display(), self.uri());
        exec.envs(self.environment()).flags(["--output".to_owned(), output])
    }

    /// Publishes a model that consists of one file.
    pub fn publish(self, weights: &[u8]) -> Ended {
        let out = tempfile::tempdir().unwrap();
        std::fs::write(out.path().join("weights"), weights).unwrap();
        self.exec(out.path()).flags(["--publish-retry", "5"]).start(&["true"]).end()
    }

    /// Names of the files below the folder, by the storage's own client.
    pub fn list(self) -> Vec<String> {
        match self {
            Self::File(_) => {
                let entries = std::fs::read_dir(self.path()).unwrap();
                entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
            }
            Self::Hdfs(_) | Self::Webhdfs(_) => {
                let (_, text) = Hdfs::shared().command(&["dfs", "-ls", "-R", "-C", &self.path()]);
                let inside = format!("{}/", self.path());
                let mut names: Vec<_> =
                    text.lines().filter_map(|line| line.strip_prefix(&inside)).map(str::to_owned).collect();
                names.sort();
                names
            }
            Self::S3(bucket) => {
                let code = format!(
                    "for it in s3.list_objects_v2(Bucket='{bucket}').get('Contents', []): print(it['Key'])
for it in s3.list_multipart_uploads(Bucket='{bucket}').get('Uploads', []): print('upload of', it['Key'])"
                );
                S3::shared()
                    .boto(&code)
                    .lines()
                    .map(|line| line.trim_start_matches("some/folder/").to_owned())
                    .collect()
            }
        }
    }

    /// A file below the folder, as lossy text.
    pub fn read_text(self, name: &str) -> String {
        match self {
            Self::File(_) => {
                String::from_utf8_lossy(&std::fs::read(format!("{}/{name}", self.path())).unwrap()).into_owned()
            }
            Self::Hdfs(_) | Self::Webhdfs(_) => {
                Hdfs::shared().command(&["dfs", "-cat", &format!("{}/{name}", self.path())]).1
            }
            Self::S3(bucket) => S3::shared().boto(&format!(
                "print(s3.get_object(Bucket='{bucket}', Key='some/folder/{name}')['Body'].read().decode(errors='replace'))"
            )),
        }
    }

    /// The file `weights` of the tarball, by the storage's own client.
    pub fn weights(self) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let tarball = dir.path().join("m.tar.gz");
        match self {
            Self::File(_) => drop(std::fs::copy(format!("{}/m.tar.gz", self.path()), &tarball).unwrap()),
            Self::Hdfs(_) | Self::Webhdfs(_) => {
                let from = format!("{}/m.tar.gz", self.path());
                let (code, text) = Hdfs::shared().command(&["dfs", "-get", &from, tarball.to_str().unwrap()]);
                assert_eq!(code, Some(0), "{text}");
            }
            Self::S3(bucket) => {
                let to = tarball.display();
                S3::shared().boto(&format!("s3.download_file('{bucket}', 'some/folder/m.tar.gz', '{to}')"));
            }
        }
        let output = Command::new("tar")
            .arg("xOzf")
            .arg(&tarball)
            .arg("weights")
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        assert!(output.status.success());
        output.stdout
    }
}
