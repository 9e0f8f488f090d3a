//! Which variables of a server's environment the programs of its jobs inherit: those that say how a program runs on this
//! machine. All others stay with the server and its agents, because some are credentials: `PGPASSWORD`, `KRB5CCNAME`,
//! `AWS_SECRET_ACCESS_KEY`, tokens of a CI system. A list of what to take away would miss the next one.

use std::ffi::OsStr;
use std::fmt;
use std::str::FromStr;

/// Variables that programs inherit. A `*` stands for the rest of a name.
const INHERITED: [&str; 44] = [
    // The user, and where files are.
    "HOME",
    "USER",
    "LOGNAME",
    "PATH",
    "TMPDIR",
    "TMP",
    "TEMP",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    // Texts and times.
    "LANG",
    "LANGUAGE",
    "LC_*",
    "TZ",
    "TZDIR",
    // Python, its environments, and its libraries.
    "PYTHON*",
    "VIRTUAL_ENV",
    "CONDA_PREFIX",
    "CONDA_DEFAULT_ENV",
    "MPLBACKEND",
    "MPLCONFIGDIR",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    // Memory, threads and devices.
    "MALLOC_*",
    "GLIBC_TUNABLES",
    "OMP_*",
    "GOMP_*",
    "KMP_*",
    "MKL_*",
    "OPENBLAS_*",
    "BLIS_*",
    "NUMEXPR_*",
    "CUDA_*",
    "NVIDIA_*",
    "ROCR_*",
    "HIP_*",
    // Certificates to trust.
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    // Spans. The agent keeps the collector's keys from user code.
    "OTEL_*",
    // Reports of errors.
    "RUST_BACKTRACE",
    "RUST_LOG",
    "NO_COLOR",
];

/// Settings of tests, which only programs of a debug build read.
const OF_TESTS: &str = "SQLFLOW_TEST_*";

/// Names of further variables that an operator lets programs inherit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PassedVariables(Vec<VariableNames>);

/// A variable's name, or with `*` at the end the beginning of names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VariableNames(String);

/// A text that names no variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamesError(String);

impl fmt::Display for NamesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is no name of a variable; write letters, digits and _, and perhaps * at the end",
            self.0
        )
    }
}

impl std::error::Error for NamesError {}

impl FromStr for VariableNames {
    type Err = NamesError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let name = text.strip_suffix('*').unwrap_or(text);
        let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if is_name && !text.is_empty() { Ok(Self(text.to_owned())) } else { Err(NamesError(text.to_owned())) }
    }
}

impl fmt::Display for VariableNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl PassedVariables {
    /// With these names.
    #[must_use]
    pub fn new(names: Vec<VariableNames>) -> Self {
        Self(names)
    }

    /// Whether programs of jobs inherit the variable of this name.
    #[must_use]
    pub fn includes(&self, name: &OsStr) -> bool {
        let of_tests = cfg!(debug_assertions).then_some(OF_TESTS);
        let mut listed =
            INHERITED.iter().copied().chain(of_tests).chain(self.0.iter().map(|it| it.0.as_str()));
        listed.any(|pattern| matches(pattern, name))
    }
}

/// Several names, with commas between them. An empty text has none.
impl FromStr for PassedVariables {
    type Err = NamesError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let names = text.split(',').filter(|name| !name.is_empty());
        names.map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for PassedVariables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.0.iter().map(|it| it.0.as_str()).collect();
        f.write_str(&names.join(","))
    }
}

fn matches(pattern: &str, name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning.as_bytes()),
        None => name == pattern.as_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_listed_is_inherited() {
        let none = PassedVariables::default();
        for (name, expected) in [
            ("PATH", true),
            ("HOME", true),
            ("LC_ALL", true),
            ("LANG", true),
            ("TZ", true),
            ("PYTHONPATH", true),
            ("OMP_NUM_THREADS", true),
            ("CUDA_VISIBLE_DEVICES", true),
            ("LD_LIBRARY_PATH", true),
            ("SSL_CERT_FILE", true),
            ("OTEL_SERVICE_NAME", true),
            ("PGPASSWORD", false),
            ("PGPASSFILE", false),
            ("PGSERVICE", false),
            ("PGHOST", false),
            ("MYSQL_PWD", false),
            ("KRB5CCNAME", false),
            ("KRB5_CONFIG", false),
            ("AWS_SECRET_ACCESS_KEY", false),
            ("AWS_PROFILE", false),
            ("GOOGLE_APPLICATION_CREDENTIALS", false),
            ("AZURE_CLIENT_SECRET", false),
            ("HADOOP_TOKEN_FILE_LOCATION", false),
            ("GITHUB_TOKEN", false),
            ("HF_TOKEN", false),
            ("SSH_AUTH_SOCK", false),
            ("DBUS_SESSION_BUS_ADDRESS", false),
            ("XDG_RUNTIME_DIR", false),
            ("NETRC", false),
            ("https_proxy", false),
            ("SQLFLOW_SERVER_DATASOURCE", false),
            ("SQLFLOW_TOKEN", false),
            ("PATHS", false),
            ("path", false),
            ("", false),
        ] {
            assert_eq!(none.includes(OsStr::new(name)), expected, "{name}");
        }
    }

    #[test]
    fn operator_adds_names_and_beginnings() {
        let passed: PassedVariables = "JAVA_HOME,HADOOP_*".parse().unwrap();
        for (name, expected) in [
            ("JAVA_HOME", true),
            ("JAVA_HOME2", false),
            ("HADOOP_CONF_DIR", true),
            ("PGHOST", false),
            ("PATH", true),
        ] {
            assert_eq!(passed.includes(OsStr::new(name)), expected, "{name}");
        }
        assert_eq!(passed.to_string(), "JAVA_HOME,HADOOP_*");
        assert_eq!("".parse(), Ok(PassedVariables::default()));
        assert!("*".parse::<PassedVariables>().unwrap().includes(OsStr::new("PGHOST")));
        for wrong in ["A=B", "A *", "*A", "A**", "ä"] {
            assert!(wrong.parse::<PassedVariables>().is_err(), "{wrong}");
        }
    }
}
