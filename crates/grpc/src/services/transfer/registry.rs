//! Pull and push on behalf of a client, which is asked for its credentials when it offers any.

use base64::Engine as _;
use berth_containerd_api::containerd::types::transfer::{AuthResponse, AuthType, ImageStore, OciRegistry};
use berth_engine::api::{Credentials, TenantPull, TenantPush, TransferStep};
use berth_types::Reference;
use tonic::Status;

use super::{Job, naming, platforms};
use crate::status::{IntoStatus as _, engine_status};

impl Job {
    pub(super) async fn pull(&self, from: &OciRegistry, to: &ImageStore) -> Result<(), Status> {
        let shown = format!("OCI Registry ({})", from.reference);
        self.say(TransferStep::line(format!("Resolving from {shown}")));
        let pull = TenantPull {
            reference: from.reference.clone(),
            credentials: self.credentials(from).await?,
            platforms: platforms(&to.platforms)?,
            all_metadata: to.all_metadata,
            manifests_max: usize::try_from(to.manifest_limit).unwrap_or(usize::MAX),
        };
        self.say(TransferStep::line(format!("Pulling from {shown}")));
        let pulled = self.face.engine.pull_blobs(&self.lease, pull, self.told.clone()).await.map_err(engine_status)?;
        self.publish_blobs(&pulled.new_blobs);
        self.unpack(&pulled.target, to).await?;
        self.save(naming::of_target(to, &pulled.target)?).await?;
        self.say(TransferStep::line(format!("Completed pull from {shown}")));
        Ok(())
    }

    pub(super) async fn push(&self, from: &ImageStore, to: &OciRegistry) -> Result<(), Status> {
        let shown = format!("OCI Registry ({})", to.reference);
        self.say(TransferStep::line(format!("Pushing to {shown}")));
        let push = TenantPush {
            image: from.name.clone(),
            reference: to.reference.clone(),
            credentials: self.credentials(to).await?,
            platforms: platforms(&from.platforms)?,
        };
        self.face.engine.push_blobs(&self.lease, push, self.told.clone()).await.map_err(engine_status)?;
        self.say(TransferStep::line(format!("Completed push to {shown}")));
        Ok(())
    }

    /// What the client says of itself; registries are reached as the daemon is configured, and what asks for another way is refused.
    async fn credentials(&self, registry: &OciRegistry) -> Result<Credentials, Status> {
        let reference: Reference =
            registry.reference.parse().map_err(|error: berth_types::reference::ReferenceError| error.into_status())?;
        let Some(resolver) = &registry.resolver else { return Ok(Credentials::Anonymous) };
        let refused = [
            ("headers", !resolver.headers.is_empty()),
            ("host_dir", !resolver.host_dir.is_empty()),
            ("http_debug", resolver.http_debug != 0),
            ("default_scheme", !["", "https"].contains(&resolver.default_scheme.as_str()) && !is_loopback(&reference)),
        ];
        if let Some((field, _)) = refused.into_iter().find(|(_, is_asked)| *is_asked) {
            let why = format!(
                "{field} of a registry is not obeyed: how registries are reached is the daemon's configuration"
            );
            return Err(Status::unimplemented(why));
        }
        if resolver.auth_stream.is_empty() {
            return Ok(Credentials::Anonymous);
        }
        let mut stream = self.face.streams.take(&self.tenant, &resolver.auth_stream)?;
        from_answer(stream.ask(reference.domain(), &registry.reference).await?)
    }
}

/// Loopback registries may speak plain HTTP without being configured.
fn is_loopback(reference: &Reference) -> bool {
    let host = reference.domain().rsplit_once(':').map_or(reference.domain(), |(host, _)| host);
    host == "localhost" || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn from_answer(answer: AuthResponse) -> Result<Credentials, Status> {
    let (user, secret) = (answer.username, answer.secret);
    match AuthType::try_from(answer.auth_type) {
        Ok(AuthType::None) => Ok(Credentials::Anonymous),
        Ok(AuthType::Refresh) if secret.is_empty() => Ok(Credentials::Anonymous),
        Ok(AuthType::Refresh) => Ok(Credentials::IdentityToken { token: secret }),
        Ok(AuthType::Credentials) => Ok(Credentials::Basic { user, password: secret }),
        Ok(AuthType::Header) => from_header(&secret),
        Err(_) => Err(Status::invalid_argument("the credentials are of an unknown kind")),
    }
}

/// The value of an `Authorization` header.
fn from_header(header: &str) -> Result<Credentials, Status> {
    let refused = || Status::invalid_argument("only Basic and Bearer can be used as an Authorization header");
    let (scheme, value) = header.split_once(' ').ok_or_else(refused)?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Ok(Credentials::RegistryToken { token: value.trim().to_owned() });
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(refused());
    }
    let bytes = base64::engine::general_purpose::STANDARD.decode(value.trim()).map_err(|_| refused())?;
    let text = String::from_utf8(bytes).map_err(|_| refused())?;
    let (user, password) = text.split_once(':').ok_or_else(refused)?;
    Ok(Credentials::Basic { user: user.to_owned(), password: password.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_clients() {
        let answer = |kind: AuthType, user: &str, secret: &str| {
            from_answer(AuthResponse {
                auth_type: kind.into(),
                username: user.to_owned(),
                secret: secret.to_owned(),
                expire_at: None,
            })
        };
        assert_eq!(answer(AuthType::Refresh, "", "").unwrap(), Credentials::Anonymous);
        let basic = Credentials::Basic { user: "u".to_owned(), password: "p:q".to_owned() };
        assert_eq!(answer(AuthType::Credentials, "u", "p:q").unwrap(), basic);
        assert_eq!(answer(AuthType::Header, "", "Basic dTpwOnE=").unwrap(), basic);
        let token = Credentials::RegistryToken { token: "t".to_owned() };
        assert_eq!(answer(AuthType::Header, "", "Bearer t").unwrap(), token);
        assert_eq!(answer(AuthType::Header, "", "Digest x").unwrap_err().code(), tonic::Code::InvalidArgument);
    }
}
