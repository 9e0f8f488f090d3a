//! Names of callers.

/// How a server found out who a caller is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// The kernel: the user of a local process.
    Unix,
    /// An entry of the token file.
    Token,
    /// A client certificate.
    Certificate,
    /// A token of an OpenID Connect provider.
    Oidc,
    /// A token of Kubernetes.
    Kubernetes,
}

impl Method {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Unix, Self::Token, Self::Certificate, Self::Oidc, Self::Kubernetes];

    /// The name, with which a principal begins.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unix => "unix",
            Self::Token => "token",
            Self::Certificate => "cert",
            Self::Oidc => "oidc",
            Self::Kubernetes => "kubernetes",
        }
    }
}

/// A person or program that the server knows: `unix:ana`, `oidc:ana@example.com`,
/// `kubernetes:system:serviceaccount:team:default`. The method is a part of the name, so that nobody becomes another
/// by choosing a name with another method.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Principal {
    name: String,
    /// With the method, as `oidc:ml-team`.
    groups: Vec<String>,
}

impl Principal {
    /// The principal with this name, as the method knows it.
    #[must_use]
    pub fn new(method: Method, name: &str) -> Self {
        Self { name: format!("{}:{name}", method.name()), groups: Vec::new() }
    }

    /// With these groups, as the method knows them.
    #[must_use]
    pub fn with_groups<'a>(mut self, method: Method, groups: impl IntoIterator<Item = &'a str>) -> Self {
        self.groups = groups.into_iter().map(|group| format!("{}:{group}", method.name())).collect();
        self
    }

    /// The same with only those groups, each with its method, that `is_kept`.
    #[must_use]
    pub fn filter_groups(&self, is_kept: impl Fn(&str) -> bool) -> Self {
        let groups = self.groups.iter().filter(|group| is_kept(group)).cloned().collect();
        Self { name: self.name.clone(), groups }
    }

    /// The name with its method.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The groups, each with the method.
    #[must_use]
    pub fn groups(&self) -> &[String] {
        &self.groups
    }
}
