//! HDFS that requires Kerberos. Its client loads the system's GSSAPI library, for a ticket and for a delegation token.
//! A static program such as the released agent would crash.

use std::path::{Path, PathBuf};

/// Files with the settings of Hadoop's client; the later one counts.
const FILES: [&str; 2] = ["core-site.xml", "hdfs-site.xml"];
const AUTHENTICATION: &str = "hadoop.security.authentication";

/// Checks the settings that `HADOOP_CONF_DIR` or `HADOOP_HOME` name.
///
/// # Errors
/// A message: this program cannot use an HDFS with these settings.
pub(super) fn check() -> Result<(), String> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    let folder =
        variable("HADOOP_CONF_DIR").or_else(|| variable("HADOOP_HOME").map(|it| it.join("etc/hadoop")));
    let Some(folder) = folder.filter(|_| cfg!(target_feature = "crt-static")) else { return Ok(()) };
    if requires_kerberos(&folder) {
        return Err(format!(
            "cannot use HDFS: it requires Kerberos ({AUTHENTICATION} in {}), which this static agent does not support; use \
             webhdfs:// with WEBHDFS_DELEGATION_TOKEN, or an agent built against the system's C library",
            folder.display()
        ));
    }
    Ok(())
}

fn requires_kerberos(folder: &Path) -> bool {
    let texts = FILES.iter().filter_map(|file| std::fs::read_to_string(folder.join(file)).ok());
    texts.filter_map(|text| authentication(&text)).next_back().is_some_and(|it| it != "simple")
}

/// Value of the setting in a configuration file; the last one counts.
fn authentication(xml: &str) -> Option<String> {
    let (_, after) = xml.rsplit_once(&format!("<name>{AUTHENTICATION}</name>"))?;
    let (_, value) = after.split_once("<value>")?;
    Some(value.split_once("</value>")?.0.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kerberos_setting_is_parsed() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!requires_kerberos(dir.path()));
        for (value, is_required) in [("simple", false), ("kerberos", true), (" kerberos\n", true)] {
            let text = format!(
                "<configuration>\n <property>\n  <name>{AUTHENTICATION}</name>\n  <value>{value}</value>\n </property>\n</configuration>"
            );
            std::fs::write(dir.path().join("core-site.xml"), text).unwrap();
            assert_eq!(requires_kerberos(dir.path()), is_required, "{value:?}");
        }
        assert_eq!(authentication("<name>hadoop.security.authentication</name>"), None);
    }
}
