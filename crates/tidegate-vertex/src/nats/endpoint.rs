//! Where a NATS server is and who we are there, as the pipeline file says it.

use std::path::PathBuf;

use async_nats::ConnectOptions;
use serde::Deserialize;

use super::NatsError;
use crate::config::secret::Secret;

/// A server and how to be known to it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// `nats://host:4222` or `tls://host:4222`.
    pub url: String,
    user: Option<String>,
    password: Option<Secret>,
    token: Option<Secret>,
    nkey: Option<Secret>,
    creds: Option<Secret>,
    #[serde(default)]
    tls: Tls,
}

/// Certificates in files.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Tls {
    required: bool,
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
}

impl Endpoint {
    /// Takes the keys of an endpoint out of a table that has others too.
    pub(crate) fn split(table: toml::Table) -> Result<(Self, toml::Table), toml::de::Error> {
        let (ours, others): (toml::Table, toml::Table) =
            table.into_iter().partition(|(key, _)| KEYS.contains(&key.as_str()));
        Ok((ours.try_into()?, others))
    }

    /// A server that wants no proof of who we are.
    pub fn open(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            user: None,
            password: None,
            token: None,
            nkey: None,
            creds: None,
            tls: Tls::default(),
        }
    }

    /// The address without what may be a password in it.
    pub fn shown_url(&self) -> String {
        match (self.url.split_once("://"), self.url.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
            _ => self.url.clone(),
        }
    }

    /// Reads the secrets (VX-839).
    pub(super) fn options(&self, options: ConnectOptions) -> Result<ConnectOptions, NatsError> {
        let mut options = options;
        if let Some(password) = &self.password {
            options = options.user_and_password(self.user.clone().unwrap_or_default(), password.read()?);
        }
        if let Some(token) = &self.token {
            options = options.token(token.read()?);
        }
        if let Some(seed) = &self.nkey {
            options = options.nkey(seed.read()?);
        }
        if let Some(creds) = &self.creds {
            // The library wants the end of the last line, which is none of a secret's.
            let credentials = format!("{}\n", creds.read()?);
            options = options
                .credentials(&credentials)
                .map_err(|source| NatsError::Connect { url: self.shown_url(), source: source.into() })?;
        }
        if let Some(ca) = &self.tls.ca {
            options = options.add_root_certificates(ca.clone());
        }
        if let (Some(cert), Some(key)) = (&self.tls.cert, &self.tls.key) {
            options = options.add_client_certificate(cert.clone(), key.clone());
        }
        Ok(options.require_tls(self.tls.required))
    }
}

/// Names of the keys above.
const KEYS: &[&str] = &["url", "user", "password", "token", "nkey", "creds", "tls"];
