//! Who asks. A secret never appears in `Debug` output, in errors or in logs.

use std::fmt;

/// What a person can prove to one registry.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub enum Credentials {
    #[default]
    Anonymous,
    Basic {
        user: String,
        password: String,
    },
    /// An OAuth2 refresh token, exchanged at the realm for access tokens.
    IdentityToken {
        token: String,
    },
    /// An access token, sent as it is.
    RegistryToken {
        token: String,
    },
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "Anonymous",
            Self::Basic { .. } => "Basic(…)",
            Self::IdentityToken { .. } => "IdentityToken(…)",
            Self::RegistryToken { .. } => "RegistryToken(…)",
        })
    }
}

/// What a successful login gives.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct LoginOutcome {
    /// To be stored instead of the password, when the registry hands one out.
    pub identity_token: Option<String>,
}

impl fmt::Debug for LoginOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoginOutcome").field("identity_token", &self.identity_token.as_ref().map(|_| "…")).finish()
    }
}
