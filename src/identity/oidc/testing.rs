//! Identity tokens as each platform makes them, signed by keys of tests. Names nothing of the library, so that tests of the
//! program use the same file.
#![allow(dead_code, reason = "each test uses a part of it")]

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    hmac,
    rand::SystemRandom,
    rsa,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
        Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaKeyPair,
    },
};
use serde_json::{Value, json};

/// One key of each kind, under the ids `rsa`, `p256`, `p384` and `ed`.
pub struct Signer {
    rsa: RsaKeyPair,
    p256: EcdsaKeyPair,
    p384: EcdsaKeyPair,
    ed: Ed25519KeyPair,
}

impl Signer {
    pub fn new() -> Self {
        let random = SystemRandom::new();
        let ec = |algorithm: &'static EcdsaSigningAlgorithm| {
            let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("entropy");
            EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).expect("own form")
        };
        let ed = Ed25519KeyPair::generate_pkcs8(&random).expect("entropy");
        Self {
            rsa: RsaKeyPair::from_pkcs8(RSA_KEY).expect("a key"),
            p256: ec(&ECDSA_P256_SHA256_FIXED_SIGNING),
            p384: ec(&ECDSA_P384_SHA384_FIXED_SIGNING),
            ed: Ed25519KeyPair::from_pkcs8(ed.as_ref()).expect("own form"),
        }
    }

    /// The key set, as JWKS.
    pub fn key_set(&self) -> Value {
        let public = rsa::PublicKeyComponents::<Vec<u8>>::from(self.rsa.public_key());
        let point = |id: &str, curve: &str, key: &EcdsaKeyPair| {
            let point = &key.public_key().as_ref()[1..];
            let (x, y) = point.split_at(point.len() / 2);
            json!({ "kty": "EC", "kid": id, "crv": curve, "x": b64(x), "y": b64(y) })
        };
        json!({ "keys": [
            { "kty": "RSA", "kid": "rsa", "use": "sig", "n": b64(&public.n), "e": b64(&public.e) },
            point("p256", "P-256", &self.p256),
            point("p384", "P-384", &self.p384),
            { "kty": "OKP", "kid": "ed", "crv": "Ed25519", "x": b64(self.ed.public_key().as_ref()) },
        ]})
    }

    /// A token as most platforms sign it.
    pub fn rs256(&self, claims: &Value) -> String {
        self.token(&json!({ "alg": "RS256", "typ": "JWT", "kid": "rsa" }), claims)
    }

    /// A token with this header, signed as its `alg` says; `none` has no signature, HS256 the public key as its secret.
    pub fn token(&self, header: &Value, claims: &Value) -> String {
        self.raw(header["alg"].as_str().unwrap_or_default(), &header.to_string(), &claims.to_string())
    }

    /// A token of these very texts.
    pub fn raw(&self, algorithm: &str, header: &str, claims: &str) -> String {
        let message = format!("{}.{}", b64(header.as_bytes()), b64(claims.as_bytes()));
        let signature = self.sign(algorithm, message.as_bytes());
        format!("{message}.{}", b64(&signature))
    }

    /// The same token with another signature that holds as well: ECDSA lets anybody make it (P-256).
    pub fn malleate(token: &str) -> String {
        const ORDER: [u8; 32] = [
            0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa, 0xad,
            0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
        ];
        let (message, signature) = token.rsplit_once('.').expect("a signature");
        let mut bytes = URL_SAFE_NO_PAD.decode(signature).expect("base64url");
        let mut borrow = 0_i16;
        for at in (0..32).rev() {
            let difference = i16::from(ORDER[at]) - i16::from(bytes[32 + at]) - borrow;
            borrow = i16::from(difference < 0);
            bytes[32 + at] = u8::try_from(difference.rem_euclid(256)).expect("a byte");
        }
        format!("{message}.{}", b64(&bytes))
    }

    fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        let rsa = |padding: &'static dyn ring::signature::RsaEncoding| {
            let mut signature = vec![0; self.rsa.public().modulus_len()];
            self.rsa.sign(padding, &random, message, &mut signature).expect("signs");
            signature
        };
        match algorithm {
            "RS256" => rsa(&RSA_PKCS1_SHA256),
            "PS256" => rsa(&RSA_PSS_SHA256),
            "ES256" => self.p256.sign(&random, message).expect("signs").as_ref().to_vec(),
            "ES384" => self.p384.sign(&random, message).expect("signs").as_ref().to_vec(),
            "EdDSA" => self.ed.sign(message).as_ref().to_vec(),
            "HS256" => {
                let public = rsa::PublicKeyComponents::<Vec<u8>>::from(self.rsa.public_key());
                hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &public.n), message).as_ref().to_vec()
            }
            _ => Vec::new(),
        }
    }
}

/// One of each platform's published shape; `iat` is `now`, in seconds.
pub fn github(now: u64) -> Value {
    json!({
        "iss": GITHUB, "aud": AUDIENCE, "iat": now, "nbf": now - 300, "exp": now + 300,
        "jti": format!("gh-{now}"),
        // The immutable form of new repositories.
        "sub": "repo:octo-org@65/octo-repo@74:ref:refs/heads/main",
        "repository": "octo-org/octo-repo", "repository_id": "74", "repository_owner": "octo-org",
        "repository_owner_id": "65", "repository_visibility": "private", "actor": "octocat", "actor_id": "12",
        "ref": "refs/heads/main", "ref_type": "branch", "ref_protected": "true", "sha": "abc", "head_ref": "",
        "base_ref": "", "event_name": "push", "environment": "production", "environment_node_id": "EN_1",
        "workflow": "deploy", "workflow_ref": "octo-org/octo-repo/.github/workflows/deploy.yml@refs/heads/main",
        "job_workflow_ref": "octo-org/automation/.github/workflows/oidc.yml@refs/tags/v1.2",
        "job_workflow_sha": "def", "run_id": "99", "run_number": "10", "run_attempt": "2",
        "runner_environment": "github-hosted", "check_run_id": "7",
    })
}

pub fn gitlab(now: u64) -> Value {
    json!({
        "iss": GITLAB, "aud": AUDIENCE, "iat": now, "nbf": now - 5, "exp": now + 3_600, "jti": format!("gl-{now}"),
        "sub": "project_path:group/app:ref_type:branch:ref:main", "namespace_id": "72", "namespace_path": "group",
        "project_id": "20", "project_path": "group/app", "project_visibility": "private", "user_id": "1",
        "user_login": "sample", "user_email": "s@example.com", "user_access_level": "developer",
        "user_identities": [{ "provider": "github", "extern_uid": "2435223452345" }],
        "pipeline_id": "574", "pipeline_source": "push", "job_id": "302", "ref": "main", "ref_type": "branch",
        "ref_path": "refs/heads/main", "ref_protected": "true", "groups_direct": ["group/sub", "other"],
        "environment": "prod", "environment_protected": "true", "deployment_tier": "production",
        "deployment_action": "start", "runner_id": 1, "runner_environment": "self-hosted", "sha": "714",
        "ci_config_ref_uri": "gitlab.com/group/app//.gitlab-ci.yml@refs/heads/main", "ci_config_sha": "714",
    })
}

pub fn kubernetes(now: u64) -> Value {
    json!({
        "iss": KUBERNETES, "aud": [AUDIENCE], "iat": now, "nbf": now, "exp": now + 600,
        "jti": "ea28ed49-2e11-4280-9ec5-bc3d1d84661a", "sub": "system:serviceaccount:payments:deployer",
        "kubernetes.io": {
            "namespace": "payments", "node": { "name": "n1", "uid": "646e" }, "pod": { "name": "p-1", "uid": "5e0b" },
            "serviceaccount": { "name": "deployer", "uid": "14ee" }, "warnafter": now + 590,
        },
    })
}

pub fn circleci(now: u64) -> Value {
    json!({
        "iss": CIRCLECI, "aud": AUDIENCE, "iat": now, "exp": now + 3_600,
        "sub": "org/2f3e/project/9b1c/user/77aa/vcs-origin/github.com/acme/app/vcs-ref/refs/heads/main",
        "oidc.circleci.com/project-id": "9b1c", "oidc.circleci.com/context-ids": ["c1", "c2"],
        "oidc.circleci.com/job-id": "j", "oidc.circleci.com/org-id": "2f3e", "oidc.circleci.com/pipeline-id": "p",
        "oidc.circleci.com/ssh-rerun": false, "oidc.circleci.com/vcs-origin": "github.com/acme/app",
        "oidc.circleci.com/vcs-ref": "refs/heads/main", "oidc.circleci.com/workflow-id": "w",
    })
}

pub fn buildkite(now: u64) -> Value {
    json!({
        "iss": BUILDKITE, "aud": AUDIENCE, "iat": now, "nbf": now, "exp": now + 300, "jti": format!("bk-{now}"),
        "sub": "organization:acme:pipeline:app:ref:refs/heads/main:commit:9f3182:step:build",
        "organization_slug": "acme", "organization_id": "0184990a", "pipeline_slug": "app", "pipeline_id": "0184990b",
        "build_number": 1, "build_branch": "main", "build_tag": null, "build_commit": "9f3182", "step_key": "build",
        "job_id": "0184990c", "agent_id": "0184990d", "build_source": "webhook", "runner_environment": "self-hosted",
    })
}

pub fn spiffe(now: u64) -> Value {
    json!({
        "aud": [AUDIENCE], "exp": now + 300, "iat": now, "iss": SPIFFE,
        "sub": "spiffe://prod.example/ns/payments/sa/deployer",
    })
}

pub fn b64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub const AUDIENCE: &str = "https://mayfly.example.com";
pub const GITHUB: &str = "https://token.actions.githubusercontent.com";
pub const GITLAB: &str = "https://gitlab.com";
pub const KUBERNETES: &str = "https://kubernetes.default.svc.cluster.local";
pub const CIRCLECI: &str = "https://oidc.circleci.com/org/2f3e";
pub const BUILDKITE: &str = "https://agent.buildkite.com";
pub const SPIFFE: &str = "https://oidc.prod.example";

/// For tests only; it protects nothing.
const RSA_KEY: &[u8] = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/issuer/rsa-2048.pk8"));
