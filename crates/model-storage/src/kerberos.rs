//! HDFS that asks for Kerberos. Its client loads the system's GSSAPI library for that, with a ticket as with a delegation
//! token, and a program without a dynamic loader, as the agent that ships, would die of trying.

use std::path::{Path, PathBuf};

/// Settings of Hadoop's client are in these, the later one counts.
const FILES: [&str; 2] = ["core-site.xml", "hdfs-site.xml"];
const AUTHENTICATION: &str = "hadoop.security.authentication";

/// # Errors
/// Why this program cannot use an HDFS with the settings that `HADOOP_CONF_DIR` or `HADOOP_HOME` name, in one sentence.
pub(super) fn check() -> Result<(), String> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    let folder =
        variable("HADOOP_CONF_DIR").or_else(|| variable("HADOOP_HOME").map(|it| it.join("etc/hadoop")));
    let Some(folder) = folder.filter(|_| cfg!(target_feature = "crt-static")) else { return Ok(()) };
    if is_asked_for(&folder) {
        return Err(format!(
            "HDFS asks for Kerberos ({AUTHENTICATION} in {}), which this static agent cannot speak: use webhdfs:// with \
             WEBHDFS_DELEGATION_TOKEN, or an agent built against the system's C library",
            folder.display()
        ));
    }
    Ok(())
}

fn is_asked_for(folder: &Path) -> bool {
    let texts = FILES.iter().filter_map(|file| std::fs::read_to_string(folder.join(file)).ok());
    texts.filter_map(|text| authentication(&text)).next_back().is_some_and(|it| it != "simple")
}

/// The value of the setting in a file of Hadoop's; the last one counts.
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
        assert!(!is_asked_for(dir.path()));
        for (value, is_asked) in [("simple", false), ("kerberos", true), (" kerberos\n", true)] {
            let text = format!(
                "<configuration>\n <property>\n  <name>{AUTHENTICATION}</name>\n  <value>{value}</value>\n </property>\n</configuration>"
            );
            std::fs::write(dir.path().join("core-site.xml"), text).unwrap();
            assert_eq!(is_asked_for(dir.path()), is_asked, "{value:?}");
        }
        assert_eq!(authentication("<name>hadoop.security.authentication</name>"), None);
    }
}
