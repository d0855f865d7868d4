//! One person's work with one repository: which hosts, whose credentials, which proofs were already handed out.
//!
//! Invariant: an `Authorization` header goes to the host whose challenge it answers, and to no other; not by redirect, not by `Location`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use berth_types::Reference;
use http::{HeaderValue, Uri};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::challenge::Challenge;
use crate::credentials::{Credentials, LoginOutcome};
use crate::endpoint::{Endpoint, Scheme};
use crate::options::RegistryOptions;
use crate::proxy::Proxies;
use crate::request::Call;
use crate::tls::TlsSettings;
use crate::transport::Transport;
use crate::{RegistryError, Result, hosts, token};

/// What all sessions of a process share: connections, and the limit of transfers at the same time.
#[derive(Debug)]
pub struct Registry {
    pub(crate) options: RegistryOptions,
    proxies: Arc<Proxies>,
    transports: Mutex<HashMap<TlsSettings, Transport>>,
    /// Whether a host that may speak either speaks TLS.
    schemes: Mutex<HashMap<String, bool>>,
    pub(crate) streams: Arc<Semaphore>,
    pub(crate) blobs: Semaphore,
    /// The same for blobs on their way to a registry.
    pub(crate) pushes: Semaphore,
}

impl Registry {
    pub fn new(options: RegistryOptions) -> Arc<Self> {
        let streams = Arc::new(Semaphore::new(options.streams_max));
        let [blobs, pushes] = [(); 2].map(|()| Semaphore::new(options.blobs_max.max(1)));
        let proxies = Arc::new(options.proxies.clone());
        let (transports, schemes) = (Mutex::default(), Mutex::default());
        Arc::new(Self { options, proxies, transports, schemes, streams, blobs, pushes })
    }

    /// Work with the repository of this reference. Configuration files are read now.
    ///
    /// # Errors
    /// `InvalidArgument` for a configuration file that cannot be understood, `PermissionDenied` for a blocked registry.
    pub fn session(self: &Arc<Self>, reference: &Reference, credentials: Credentials) -> Result<Arc<Session>> {
        let endpoints = hosts::endpoints(&self.options, reference)?;
        Ok(Arc::new(Session {
            registry: Arc::clone(self),
            reference: reference.clone(),
            credentials,
            endpoints,
            proofs: Mutex::default(),
        }))
    }

    /// Whether the registry (`host[:port]`, or `docker.io`) accepts these credentials.
    ///
    /// # Errors
    /// `PermissionDenied` when it does not; `Unavailable` when it cannot be asked.
    pub async fn login(self: &Arc<Self>, domain: &str, credentials: Credentials) -> Result<LoginOutcome> {
        let bad = |_| RegistryError::Option { option: "server address", why: format!("{domain:?} names no registry") };
        let reference: Reference = format!("{domain}/login/check").parse().map_err(bad)?;
        self.session(&reference, credentials)?.check_login(domain).await
    }

    pub(crate) fn transport(&self, settings: &TlsSettings) -> Transport {
        let mut all = self.transports.lock();
        let new = || Transport::new(&self.options, Arc::clone(&self.proxies), settings.clone());
        all.entry(settings.clone()).or_insert_with(new).clone()
    }

    /// For hosts nobody configured: where redirects and realms lead.
    pub(crate) fn transport_elsewhere(&self, uri: &Uri) -> Transport {
        let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
        self.transport(&hosts::tls_elsewhere(&self.options, &authority))
    }

    pub(crate) async fn speaks_tls(&self, endpoint: &Endpoint) -> bool {
        match endpoint.scheme {
            Scheme::Https => return true,
            Scheme::Http => return false,
            Scheme::Either => {}
        }
        if let Some(known) = self.schemes.lock().get(&endpoint.authority) {
            return *known;
        }
        let speaks = self.transport(&endpoint.tls).speaks_tls(&endpoint.authority).await;
        self.schemes.lock().insert(endpoint.authority.clone(), speaks);
        speaks
    }

    /// The host may have been replaced by one that speaks otherwise.
    pub(crate) fn forget_scheme(&self, endpoint: &Endpoint) {
        self.schemes.lock().remove(&endpoint.authority);
    }
}

/// See the module. Shared by the transfers of one pull or push.
#[derive(Debug)]
pub struct Session {
    pub(crate) registry: Arc<Registry>,
    pub(crate) reference: Reference,
    credentials: Credentials,
    pub(crate) endpoints: Vec<Endpoint>,
    /// (authority, scope) -> what answers the host's challenge.
    proofs: Mutex<HashMap<(String, String), Proof>>,
}

#[derive(Debug, Clone)]
struct Proof {
    header: HeaderValue,
    expires: Option<Instant>,
}

impl Session {
    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    /// The hosts in the order they are asked, for a plan or a log.
    pub fn hosts(&self) -> Vec<String> {
        self.endpoints.iter().map(|endpoint| endpoint.authority.clone()).collect()
    }

    pub(crate) fn scope(endpoint: &Endpoint, actions: &str) -> String {
        format!("repository:{}:{actions}", endpoint.repository)
    }

    pub(crate) fn proof(&self, endpoint: &Endpoint, scope: &str) -> Option<HeaderValue> {
        let key = (endpoint.authority.clone(), scope.to_owned());
        let proofs = self.proofs.lock();
        let proof = proofs.get(&key)?;
        proof.expires.is_none_or(|at| at > Instant::now()).then(|| proof.header.clone())
    }

    pub(crate) fn forget_proof(&self, endpoint: &Endpoint, scope: &str) {
        self.proofs.lock().remove(&(endpoint.authority.clone(), scope.to_owned()));
    }

    /// Answers a challenge that `uri` gave; the proof is then known for this host and scope.
    pub(crate) async fn prove(&self, endpoint: &Endpoint, uri: &Uri, scope: &str, challenge: &Challenge) -> Result<()> {
        let credentials = if endpoint.is_origin { &self.credentials } else { &Credentials::Anonymous };
        let proof = match (challenge, credentials) {
            (Challenge::Basic, Credentials::Basic { user, password }) => {
                Proof { header: token::basic(user, password), expires: None }
            }
            (Challenge::Basic, _) => return Err(self.denied(scope, "it wants a user name and a password")),
            (Challenge::Bearer { .. }, Credentials::RegistryToken { token }) => {
                Proof { header: token::bearer(token, &endpoint.authority)?, expires: None }
            }
            (Challenge::Bearer { realm, service, scope: asked }, _) => {
                let request = token::TokenRequest {
                    realm: token::checked_realm(uri, realm)?,
                    service,
                    scope: if scope.is_empty() { asked } else { scope },
                    credentials,
                    wants_refresh_token: false,
                };
                let token =
                    token::fetch(&self.registry, &request).await.map_err(|error| self.login_failed(error, scope))?;
                Proof { header: token::bearer(&token.value, &endpoint.authority)?, expires: Some(token.expires) }
            }
        };
        self.proofs.lock().insert((endpoint.authority.clone(), scope.to_owned()), proof);
        Ok(())
    }

    /// A realm that refuses says the same as a registry that refuses.
    fn login_failed(&self, error: RegistryError, scope: &str) -> RegistryError {
        match error {
            RegistryError::Status { status: 401 | 403, code, message, .. } => {
                self.denied(scope, if message.is_empty() { &code } else { &message })
            }
            other => other,
        }
    }

    pub(crate) fn denied(&self, scope: &str, message: &str) -> RegistryError {
        let action = if scope.contains("push") { "push" } else { "pull" };
        RegistryError::Denied { action, name: self.reference.familiar_repository(), message: message.to_owned() }
    }

    async fn check_login(&self, domain: &str) -> Result<LoginOutcome> {
        let endpoint = self.endpoints.iter().find(|e| e.is_origin).or(self.endpoints.last());
        let none = || RegistryError::Option { option: "server address", why: format!("{domain:?} names no registry") };
        let endpoint = endpoint.ok_or_else(none)?;
        let refused = |message: String| RegistryError::BadLogin { host: domain.to_owned(), message };
        let uri = endpoint.base_uri(self.registry.speaks_tls(endpoint).await)?;
        let challenge = match self.challenge(endpoint, &uri).await? {
            None if self.credentials == Credentials::Anonymous => return Ok(LoginOutcome::default()),
            // A registry that asks nobody for anything cannot say whether a password is right.
            None => return Ok(LoginOutcome::default()),
            Some(challenge) => challenge,
        };
        if let Challenge::Bearer { realm, service, scope } = &challenge {
            let request = token::TokenRequest {
                realm: token::checked_realm(&uri, realm)?,
                service,
                scope,
                credentials: &self.credentials,
                wants_refresh_token: true,
            };
            let token = token::fetch(&self.registry, &request).await.map_err(|error| match error {
                RegistryError::Status { status: 400..=403, message, .. } => refused(message),
                other => other,
            })?;
            let header = token::bearer(&token.value, &endpoint.authority)?;
            let key = (endpoint.authority.clone(), String::new());
            self.proofs.lock().insert(key, Proof { header, expires: Some(token.expires) });
            self.call(endpoint, Call::get("log in to", uri, String::new())).await?;
            return Ok(LoginOutcome { identity_token: token.refresh });
        }
        match self.call(endpoint, Call::get("log in to", uri, String::new())).await {
            Ok(_) => Ok(LoginOutcome::default()),
            Err(RegistryError::Denied { message, .. }) => Err(refused(message)),
            Err(other) => Err(other),
        }
    }
}
