//! A CI platform of the demo's own: it signs identity tokens of the shape that GitHub Actions publishes.

use std::{path::Path, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::{
    cli::failure::{Failure, Outcome},
    mint::signing::{Algorithm, SigningKey},
    model::time::system_wall,
};

/// An issuer of identity tokens, whose keys the daemon has from a file instead of from the network.
#[derive(Debug)]
pub struct Platform {
    key: SigningKey,
}

impl Platform {
    /// What the daemon's issuers and the trust map call it.
    pub const NAME: &'static str = "ci";
    /// The repository that the trust map binds.
    pub const REPOSITORY_ID: &'static str = "74";

    /// With a key of its own.
    ///
    /// # Errors
    /// When the system has no entropy.
    pub fn new() -> Outcome<Self> {
        let made = SigningKey::generate(Algorithm::Es256);
        let (key, _) = made.map_err(|why| Failure::Internal(format!("the demo's CI platform: {why}")))?;
        Ok(Self { key })
    }

    /// Writes its key set and the file of issuers for `serve --dev --issuers` into `folder`.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn declare(&self, folder: &Path) -> Outcome {
        let write = |name: &str, text: String| {
            let file = folder.join(name);
            std::fs::write(&file, text).map_err(|error| Failure::file("write", &file, error))
        };
        write(KEYS_FILE, json!({ "keys": [self.key.public().to_json()] }).to_string())?;
        let name = Self::NAME;
        write(
            Self::ISSUERS_FILE,
            format!(
                "[[issuer]]\nname = {name:?}\nkind = \"github\"\nurl = {ISSUER:?}\naudience = {AUDIENCE:?}\n\
                 algorithms = [\"ES256\"]\njwks_file = {KEYS_FILE:?}\n"
            ),
        )
    }

    /// The token of a job on the main branch of the bound repository, with some claims put in the place of its own.
    ///
    /// # Errors
    /// When the system has no entropy.
    pub fn token(&self, other: &[(&str, &str)]) -> Outcome<String> {
        let now = system_wall();
        let mut claims = json!({
            "iss": ISSUER, "aud": AUDIENCE, "iat": now.seconds(), "nbf": now.before(BACK).seconds(),
            "exp": now.after(LIFE).seconds(), "jti": format!("demo-{}", now.millis()),
            "sub": "repo:acme@65/records@74:ref:refs/heads/main", "repository": "acme/records",
            "repository_id": Self::REPOSITORY_ID, "repository_owner": "acme", "repository_owner_id": "65",
            "ref": "refs/heads/main", "ref_type": "branch", "ref_protected": "true", "event_name": "push",
            "workflow_ref": "acme/records/.github/workflows/sync.yml@refs/heads/main", "run_id": "99",
            "runner_environment": "github-hosted",
        });
        for (name, value) in other {
            if let Some(members) = claims.as_object_mut() {
                members.insert((*name).to_owned(), Value::from(*value));
            }
        }
        let header = json!({ "alg": "ES256", "typ": "JWT", "kid": self.key.key_id() });
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(&claims));
        let signature = self.key.sign(signed.as_bytes());
        let signature = signature.map_err(|why| Failure::Internal(format!("the demo's CI platform: {why}")))?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// The file of issuers.
    pub const ISSUERS_FILE: &'static str = "issuers.toml";
}

const KEYS_FILE: &str = "ci-keys.json";
const ISSUER: &str = "https://token.actions.githubusercontent.com";
const AUDIENCE: &str = "https://mayfly.demo";
const BACK: Duration = Duration::from_secs(60);
const LIFE: Duration = Duration::from_secs(300);
