//! ID tokens of people who sign in (OpenID Connect Core 1.0 sections 2 and 3.1.3.7).

use super::{
    claims::{Claims, shown},
    fault::TokenFault,
    keys::KeySet,
    token::UnverifiedToken,
};
use crate::model::{
    Digest, SignInRule, SignInRules, Timestamp,
    person::{folded, same_address},
};

/// What an ID token proves: who signed in. No [`crate::identity::Caller`] comes of it, so that it opens nothing by itself.
#[derive(Clone, Debug)]
pub struct PersonProof {
    /// SHA-256 of what was signed.
    pub token: Digest,
    /// `sub`.
    pub subject: String,
    /// The id that the directory calls the person by, where the token has it.
    pub directory_id: Option<String>,
    /// The mail address, where the provider has verified it.
    pub email: Option<String>,
    /// What else the person is called, verified or not; only to find who may not sign in.
    pub names: Vec<String>,
    /// When it was issued, by its own word.
    pub issued: Timestamp,
    /// When no broker would take the token any more.
    pub forgotten: Timestamp,
    claims: Claims,
}

impl UnverifiedToken {
    /// Checks it as an ID token for this client, with a `nonce` bound to the client's key where there is one.
    ///
    /// # Errors
    /// When it is not to be believed, not for this client, or not now.
    pub fn verify_person(
        self,
        rules: &SignInRules,
        keys: &KeySet,
        nonce: &str,
        now: Timestamp,
    ) -> Result<PersonProof, TokenFault> {
        self.check_signature(&rules.issuer, keys)?;
        let claims = self.checked_claims()?;
        // RFC 8417 section 4.1, OpenID Connect Back-Channel Logout section 2.4: an event is no identity.
        if self.members().contains_key("events") {
            return Err(TokenFault::Claims("they are of an event"));
        }
        check_party(&claims, rules)?;
        match claims.one("nonce") {
            Some(found) if found == nonce => {}
            None if !rules.require_nonce && claims.value("nonce").is_none() => {}
            Some(_) | None => return Err(TokenFault::Nonce),
        }
        let (_, forgotten) = self.end(&rules.issuer, now)?;
        let issued = self.date("iat")?.ok_or(TokenFault::Claim("iat"))?;
        let subject = claims.one("sub").filter(|subject| (1..=255).contains(&subject.len()));
        let subject = subject.ok_or(TokenFault::Claim("sub"))?.to_owned();
        let directory_id = claims.one(rules.directory_claim.as_deref().unwrap_or("sub"));
        let directory_id = directory_id.filter(|id| (1..=255).contains(&id.len())).map(str::to_owned);
        let email = claims.one("email").filter(|_| claims.one("email_verified") == Some("true"));
        let email = email.filter(|email| email.len() <= 255).map(str::to_owned);
        let names = ["email", "preferred_username", "upn"].into_iter().filter_map(|name| claims.one(name));
        let names = names.filter(|name| name.len() <= 255).map(folded).collect();
        Ok(PersonProof { token: self.id(), subject, directory_id, email, names, issued, forgotten, claims })
    }
}

impl PersonProof {
    /// Whether the person is who a rule is about. A mail address counts when it is verified, in either case.
    #[must_use]
    pub fn fits(&self, rule: &SignInRule) -> bool {
        let holds = |claim: &str, texts: &[String]| match claim {
            "email" => self.email.as_ref().is_some_and(|own| texts.iter().any(|text| same_address(text, own))),
            _ => {
                let said = self.claims.value(claim).map(super::ClaimValue::all).unwrap_or_default();
                said.iter().any(|one| texts.contains(one))
            }
        };
        !rule.claims.is_empty() && rule.claims.iter().all(|(claim, texts)| holds(claim, texts))
    }

    /// As events and people name the person.
    #[must_use]
    pub fn text(&self) -> String {
        shown(self.email.as_deref().unwrap_or(&self.subject))
    }

    /// The subject as events may show it.
    #[must_use]
    pub fn shown_subject(&self) -> String {
        shown(&self.subject)
    }
}

/// For this client: alone, or beside others that the config names and then by `azp`.
fn check_party(claims: &Claims, rules: &SignInRules) -> Result<(), TokenFault> {
    let client = rules.issuer.audience.as_str();
    let audience = claims.value("aud").ok_or(TokenFault::Claim("aud"))?;
    let listed = audience.all();
    let others = listed.iter().filter(|one| *one != client);
    let known = others.clone().all(|one| rules.audiences.contains(one));
    if !listed.iter().any(|one| one == client) || !known {
        return Err(TokenFault::Audience { found: audience.to_string(), want: client.to_owned() });
    }
    match claims.value("azp") {
        Some(party) if party.all() == [client] => Ok(()),
        None if others.count() == 0 => Ok(()),
        Some(_) | None => Err(TokenFault::Party { want: client.to_owned() }),
    }
}
