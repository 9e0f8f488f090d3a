//! Options of OpenID Connect.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use sqlflow_identity::{Method, Policy};
use sqlflow_job_store::Secret;

use crate::access::oidc::{self, NameClaims, Oidc};
use crate::web::OidcClient;

/// Options of OpenID Connect.
#[derive(Debug, Clone, clap::Args)]
pub struct OidcArgs {
    /// Accept tokens (JWT) of this OpenID Connect provider, which is named exactly as it names itself, such as
    /// https://login.example.com. A client with such a token is oidc:NAME. Nobody may use the server by one without --allow
    #[arg(long, env = "SQLFLOW_OIDC_ISSUER", value_name = "URL", value_parser = issuer, requires = "oidc_audience")]
    pub oidc_issuer: Option<String>,

    /// The server's names at the provider: a token must be for one of these audiences. Do not name a client that other
    /// programs use, since they could use its tokens here
    #[arg(
        long,
        env = "SQLFLOW_OIDC_AUDIENCE",
        value_name = "NAMES",
        value_delimiter = ',',
        requires = "oidc_issuer"
    )]
    pub oidc_audience: Vec<String>,

    /// Claim of a token that is the principal's name. `email` must be a verified one. Choose a claim that users cannot
    /// change, and whose values are never given to somebody else
    #[arg(long, env = "SQLFLOW_OIDC_PRINCIPAL_CLAIM", value_name = "CLAIM", default_value = "sub")]
    pub oidc_principal_claim: String,

    /// Claim of a token with the principal's groups, a list of texts: each is group:oidc:NAME in --allow and --admin
    #[arg(long, env = "SQLFLOW_OIDC_GROUPS_CLAIM", value_name = "CLAIM", default_value = "groups")]
    pub oidc_groups_claim: String,

    /// Certificates that sign the provider's (PEM) [default: those that the system trusts]
    #[arg(long, env = "SQLFLOW_OIDC_CA", value_name = "FILE", requires = "oidc_issuer")]
    pub oidc_ca: Option<PathBuf>,

    /// Let people sign in to the pages at the provider, where this is the client's id, and PUBLIC-URL/oidc/callback its
    /// redirect URI
    #[arg(
        long,
        env = "SQLFLOW_OIDC_CLIENT_ID",
        value_name = "ID",
        requires = "oidc_issuer",
        requires = "public_url"
    )]
    pub oidc_client_id: Option<String>,

    /// File with the client's secret [default: none, for a public client]
    #[arg(long, env = "SQLFLOW_OIDC_CLIENT_SECRET_FILE", value_name = "FILE", requires = "oidc_client_id")]
    pub oidc_client_secret_file: Option<PathBuf>,

    /// What is requested for a sign-in beside openid: the claims of the principal and the groups must be in it
    #[arg(
        long,
        env = "SQLFLOW_OIDC_SCOPES",
        value_name = "NAMES",
        value_delimiter = ',',
        default_value = "profile,email"
    )]
    pub oidc_scopes: Vec<String>,
}

fn issuer(text: &str) -> Result<String, String> {
    oidc::address(text).map(|_| text.to_owned())
}

impl OidcArgs {
    /// Refuses a provider whose tokens nobody may use, and a sign-in whose codes could be read on their way.
    ///
    /// # Errors
    /// One sentence with what can be done.
    pub fn check(&self, policy: &Policy, public_url: Option<&str>) -> anyhow::Result<()> {
        if let Some(issuer) = &self.oidc_issuer {
            ensure!(
                policy.names(Method::Oidc),
                "cannot accept tokens of {issuer}: nobody may use the server by one; name principals or groups with \
                 --allow oidc:NAME or --allow group:oidc:NAME"
            );
        }
        if let (Some(_), Some(url)) = (&self.oidc_client_id, public_url) {
            oidc::address(url)
                .map_err(|why| anyhow::anyhow!("cannot sign in with --oidc-client-id: --public-url {why}"))?;
        }
        Ok(())
    }

    /// The verifier of the provider's tokens, which has not asked the provider yet.
    ///
    /// # Errors
    /// The certificates cannot be used.
    pub fn open(&self) -> anyhow::Result<Option<Arc<Oidc>>> {
        let Some(issuer) = &self.oidc_issuer else { return Ok(None) };
        let names = NameClaims {
            principal: self.oidc_principal_claim.clone(),
            groups: self.oidc_groups_claim.clone(),
        };
        let oidc = Oidc::new(issuer, names, self.oidc_ca.as_deref());
        Ok(Some(Arc::new(oidc.context("cannot use --oidc-issuer")?)))
    }

    /// How the pages sign in.
    ///
    /// # Errors
    /// The file with the secret cannot be read.
    pub fn client(&self) -> anyhow::Result<Option<OidcClient>> {
        let Some(id) = &self.oidc_client_id else { return Ok(None) };
        let secret = self.oidc_client_secret_file.as_ref().map(|file| -> anyhow::Result<Secret> {
            let read = std::fs::read_to_string(file);
            let text = read.with_context(|| format!("cannot read the client's secret {}", file.display()))?;
            let text = text.trim();
            ensure!(!text.is_empty(), "cannot use the client's secret {}: the file is empty", file.display());
            Ok(Secret::new(text))
        });
        let scopes = self.oidc_scopes.iter().map(String::as_str).filter(|it| *it != "openid");
        let scope = std::iter::once("openid").chain(scopes).collect::<Vec<_>>().join(" ");
        Ok(Some(OidcClient { id: id.clone(), secret: secret.transpose()?, scope }))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use crate::config::Options;

    const ISSUER: &str = "--oidc-issuer=https://login.example.com";

    fn check(flags: &[&str]) -> Result<(), String> {
        let options = Options::try_parse_from([&["sqlflow-server"], flags].concat());
        options.map_err(|error| error.to_string())?.check_access().map_err(|error| error.to_string())
    }

    fn refused(flags: &[&str], part: &str) {
        let error = check(flags).unwrap_err();
        assert!(error.contains(part), "{flags:?}: {error}");
    }

    #[test]
    fn audience_and_a_principal_are_needed() {
        let audience = "--oidc-audience=sqlflow";
        for allowed in ["--allow=oidc:ana", "--allow=unix:ana,group:oidc:ml", "--admin=oidc:*", "--insecure"]
        {
            assert_eq!(check(&[ISSUER, audience, allowed]), Ok(()), "{allowed}");
        }
        refused(&[ISSUER, "--allow=oidc:ana"], "--oidc-audience");
        refused(&[audience], "--oidc-issuer");
        for nobody in [&[][..], &["--allow=token:*"], &["--allow=group:kubernetes:oidc"]] {
            refused(
                &[&[ISSUER, audience], nobody].concat(),
                "name principals or groups with --allow oidc:NAME",
            );
        }
        refused(&["--oidc-issuer=http://login.example.com", audience], "https://");
    }

    #[test]
    fn sign_in_needs_an_encrypted_public_url() {
        let flags = [ISSUER, "--oidc-audience=sqlflow", "--allow=oidc:*", "--oidc-client-id=pages"];
        let with = |more: &'static str| [&flags[..], &[more]].concat();
        refused(&flags, "--public-url");
        refused(&with("--public-url=http://sqlflow.example.com"), "does not begin with https://");
        assert_eq!(check(&with("--public-url=https://sqlflow.example.com")), Ok(()));
        assert_eq!(check(&with("--public-url=http://localhost:50080")), Ok(()));
        refused(&[ISSUER, "--oidc-audience=a", "--oidc-client-secret-file=f"], "--oidc-client-id");
    }

    #[test]
    fn other_addresses_can_be_listened_on_with_a_provider() {
        let flags = ["--listen=:1", ISSUER, "--oidc-audience=a", "--allow=oidc:*"];
        refused(&flags, "--tls-cert");
        assert_eq!(check(&[&flags[..], &["--tls-cert=c", "--tls-key=k"]].concat()), Ok(()));
    }
}
