//! The agent's own files, which its command must not open: credentials of storages, the token that identifies its Pod, and
//! what it leaves for a server. They are in the same container as the command, and belong to the same user.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// Variables that name a file with credentials of a storage.
const VARIABLES: [&str; 13] = [
    "ALIBABA_CLOUD_CREDENTIALS_FILE",
    "ALIBABA_CLOUD_OIDC_TOKEN_FILE",
    "AWS_CONFIG_FILE",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AZURE_CLIENT_CERTIFICATE_PATH",
    "AZURE_FEDERATED_TOKEN_FILE",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "HADOOP_TOKEN_FILE_LOCATION",
    "KRB5CCNAME",
    "KRB5_CLIENT_KTNAME",
    "KRB5_KTNAME",
];

/// What may precede a path in a variable of Kerberos. Other kinds, such as `KEYRING:`, name no file.
const KERBEROS_KINDS: [&str; 4] = ["FILE:", "DIR::", "DIR:", "WRFILE:"];

/// Where platforms put tokens into a Pod.
const TOKEN_FOLDER: &str = "/var/run/secrets";

/// The link in a folder of a Secret, ConfigMap or projected volume: the kubelet lets it lead to a new folder when a file
/// changes.
const VOLUME_DATA: &str = "..data";

/// Those that the environment and these options name. Relative paths name none: nobody sets them.
pub fn private_files<'a>(options: impl IntoIterator<Item = &'a Path>) -> Vec<PathBuf> {
    named_by(|name| std::env::var_os(name), options)
}

fn named_by<'a>(
    variable: impl Fn(&str) -> Option<OsString>,
    options: impl IntoIterator<Item = &'a Path>,
) -> Vec<PathBuf> {
    let variables = VARIABLES.iter().filter_map(|name| variable(name)).map(|it| path_of(&it));
    let options = options.into_iter().map(Path::to_owned);
    let all = variables.chain(options).chain([PathBuf::from(TOKEN_FOLDER)]);
    all.filter(|path| path.is_absolute()).map(|path| volume_of(&path).unwrap_or(path)).collect()
}

fn path_of(value: &OsStr) -> PathBuf {
    let bytes = value.as_bytes();
    let path = KERBEROS_KINDS.iter().find_map(|kind| bytes.strip_prefix(kind.as_bytes()));
    PathBuf::from(OsStr::from_bytes(path.unwrap_or(bytes)))
}

/// The folder of a volume that the kubelet fills. It has later versions of the file, too.
fn volume_of(file: &Path) -> Option<PathBuf> {
    file.ancestors().skip(1).find(|folder| folder.join(VOLUME_DATA).is_symlink()).map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn files_of_variables_and_options_are_private_with_their_volumes() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("volume");
        std::fs::create_dir_all(volume.join("..2026_01")).unwrap();
        std::fs::write(volume.join("..2026_01/key.json"), "secret").unwrap();
        symlink("..2026_01", volume.join(VOLUME_DATA)).unwrap();
        symlink("..data/key.json", volume.join("key.json")).unwrap();
        let set = |name: &str| match name {
            "GOOGLE_APPLICATION_CREDENTIALS" => Some(volume.join("key.json").into()),
            "AWS_SHARED_CREDENTIALS_FILE" => Some("/etc/aws/credentials".into()),
            "AWS_CONFIG_FILE" => Some("relative".into()),
            "KRB5CCNAME" => Some("FILE:/run/ticket".into()),
            "KRB5_CLIENT_KTNAME" => Some("/etc/agent.keytab".into()),
            "KRB5_KTNAME" => Some("KEYRING:persistent:0".into()),
            _ => None,
        };
        let files = named_by(set, [Path::new("/dev/termination-log")]);
        let expected = [
            Path::new("/etc/aws/credentials"),
            &volume,
            Path::new("/run/ticket"),
            Path::new("/etc/agent.keytab"),
            Path::new("/dev/termination-log"),
            Path::new(TOKEN_FOLDER),
        ];
        assert_eq!(files, expected);
    }
}
