//! People who administer by sign-in: their ids, and the rules that make them operators.

use std::{collections::BTreeMap, fmt, str::FromStr, sync::Arc, time::Duration};

use super::{
    id::{OperatorName, hex, unhex},
    issuer::IssuerRules,
    secret::{self, Digest, EntropyUnavailable},
};

/// Names a person's row, or a sign-in: 16 random bytes. Not a secret. 32 hex digits as text.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PersonId(pub [u8; Self::BYTES]);

impl PersonId {
    /// Length in keys.
    pub const BYTES: usize = 16;

    /// A new random id.
    ///
    /// # Errors
    /// When the system has no entropy.
    pub fn fresh() -> Result<Self, EntropyUnavailable> {
        let mut id = [0; Self::BYTES];
        secret::fill(&mut id)?;
        Ok(Self(id))
    }

    /// From a key; `None` unless 16 bytes.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl FromStr for PersonId {
    type Err = ();

    /// From its text, which has one spelling.
    fn from_str(text: &str) -> Result<Self, ()> {
        let id = unhex(text).ok().and_then(|bytes| Self::from_slice(&bytes)).ok_or(())?;
        if id.to_string() == text { Ok(id) } else { Err(()) }
    }
}

impl fmt::Display for PersonId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for PersonId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

/// What a person is found by, as a hash: of a kind and a text. Also where the person's row cannot be read any more.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PersonKey(pub [u8; Self::BYTES]);

impl PersonKey {
    /// Length in keys.
    pub const BYTES: usize = 16;

    /// By a name, however it is spelt.
    #[must_use]
    pub fn name(name: &str) -> Self {
        Self::of(b"n", &folded(name))
    }

    /// By an id at a directory or provider.
    #[must_use]
    pub fn subject(subject: &str) -> Self {
        Self::of(b"s", subject)
    }

    /// By what the person is: all who are this operator.
    #[must_use]
    pub fn operator(operator: &str) -> Self {
        Self::of(b"o", operator)
    }

    /// From a key; `None` unless 16 bytes.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    fn of(kind: &[u8], text: &str) -> Self {
        let hash = Digest::of_parts(&[b"person key\n", kind, b"\n", text.as_bytes()]);
        let mut key = [0; Self::BYTES];
        key.iter_mut().zip(hash.0).for_each(|(to, from)| *to = from);
        Self(key)
    }
}

/// How people sign in, as the config declares it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SignInRules {
    /// The provider; its `audience` is the client id.
    pub issuer: Arc<IssuerRules>,
    /// What the client asks for.
    pub scopes: Vec<String>,
    /// Audiences that may stand beside the client id; then `azp` says that the token is for this client.
    pub audiences: Vec<String>,
    /// Whether a token without a nonce is refused.
    pub require_nonce: bool,
    /// The claim with the id that the company's directory calls the person by (`externalId`), which no change of name or mail
    /// address changes; `None` for `sub`.
    pub directory_claim: Option<String>,
    /// Whether only who is in the directory, and active there, may sign in.
    pub require_provisioned: bool,
    /// How long a certificate lives. At most 12 h.
    pub life: Duration,
    /// Who is what; the first that fits counts.
    pub rules: Vec<SignInRule>,
}

/// Makes an operator of who has certain claims.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SignInRule {
    /// The operator of the trust map: role, scope and owners are there.
    pub operator: OperatorName,
    /// Each of these claims must hold one of the texts; at least one claim.
    pub claims: BTreeMap<String, Vec<String>>,
}

impl SignInRules {
    /// Names a rule by all that it says, and by whose words it believes: changed, it is another rule.
    #[must_use]
    pub fn id(&self, rule: &SignInRule) -> Digest {
        let mut text = format!("{}\n{}\n{}\n", self.issuer.url, self.issuer.audience, rule.operator);
        for (claim, texts) in &rule.claims {
            text.push_str(&format!("{claim:?}={texts:?}\n"));
        }
        Digest::of(text.as_bytes())
    }

    /// Whether a rule of this id makes somebody this operator still.
    #[must_use]
    pub fn has(&self, id: &Digest, operator: &OperatorName) -> bool {
        self.rules.iter().any(|rule| rule.operator == *operator && self.id(rule).matches(id))
    }
}

/// How mail addresses and user names are compared where a match takes authority away (RFC 7643 section 4.1.1: `userName`
/// has no regard to case). Where one gives authority, [`same_address`].
#[must_use]
pub fn folded(name: &str) -> String {
    name.trim().to_lowercase()
}

/// Whether two mail addresses are one where that gives authority. Only ASCII is without regard to case: the wide folding
/// makes an ordinary letter of some others (`K` of U+212A), which a stranger may have registered.
#[must_use]
pub fn same_address(one: &str, other: &str) -> bool {
    !one.is_empty() && one.eq_ignore_ascii_case(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::IssuerKind;

    #[test]
    fn no_two_ids_are_the_same_nor_are_the_keys_of_two_names() {
        assert_ne!(PersonId::fresh().expect("entropy"), PersonId::fresh().expect("entropy"));
        let keys =
            [PersonKey::name("anna"), PersonKey::name("bert"), PersonKey::subject("anna"), PersonKey::operator("anna")];
        for (at, key) in keys.iter().enumerate() {
            assert!(keys.iter().skip(at + 1).all(|other| other.0 != key.0), "{at}");
        }
    }

    #[test]
    fn a_letter_that_folds_into_another_is_the_same_only_to_take_away() {
        assert!(same_address("Kim@Acme.example", "kim@acme.example"));
        assert_eq!(folded("\u{212a}im@acme.example"), folded("kim@acme.example"));
        assert!(!same_address("\u{212a}im@acme.example", "kim@acme.example"));
        assert!(!same_address("", ""));
    }

    #[test]
    fn an_id_has_one_spelling() {
        let id = PersonId::fresh().expect("entropy");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(PersonId([0xab; 16]).to_string().to_uppercase().parse::<PersonId>(), Err(()));
        assert_eq!("ab".parse::<PersonId>(), Err(()));
    }

    #[test]
    fn a_rule_that_says_anything_else_is_another_rule() {
        let rule = |operator: &str, text: &str| SignInRule {
            operator: operator.parse().expect("a name"),
            claims: [("groups".to_owned(), vec![text.to_owned()])].into_iter().collect(),
        };
        let rules = |audience: &str, listed: Vec<SignInRule>| SignInRules {
            issuer: Arc::new(IssuerRules::of_kind(IssuerKind::Generic, "https://idp.example", audience)),
            scopes: vec![],
            audiences: vec![],
            require_nonce: false,
            directory_claim: None,
            require_provisioned: false,
            life: Duration::from_secs(60),
            rules: listed,
        };
        let now = rules("mayfly", vec![rule("sre", "oncall")]);
        let sre = "sre".parse().expect("a name");
        let id = now.id(&now.rules[0]);
        assert!(now.has(&id, &sre));
        assert!(!now.has(&id, &"admin".parse().expect("a name")));
        for other in [
            rules("mayfly", vec![rule("sre", "everyone")]),
            rules("mayfly", vec![rule("admin", "oncall")]),
            rules("another", vec![rule("sre", "oncall")]),
            rules("mayfly", vec![]),
        ] {
            assert!(!other.has(&id, &sre));
        }
    }
}
