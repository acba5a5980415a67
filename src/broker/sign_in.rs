//! People sign in as operators, for a few hours.
//!
//! What makes somebody an operator is decided at the sign-in and looked at again for each request: the rule of the config,
//! the operator of the trust map, the sign-in itself, and that the person is still there.

use std::{collections::BTreeSet, net::SocketAddr};

use super::{
    Broker, IdentityRefusal, event, federate,
    people::{CLOSINGS_MOST, Called, Door},
    refusal::Refusal,
    revoke::check_reason,
    task::revision,
    view,
};
use crate::{
    identity::{
        Caller, CertificateProof,
        oidc::{PersonProof, TokenFault, UnverifiedToken},
    },
    ledger::SignInDraft,
    mint::{
        ca::{self, Validity},
        x509::{Csr, MintedLeaf, parse_csr},
    },
    model::{
        Digest, OperatorName, PersonId, SignInRule, Timestamp, Voter,
        person::{folded, same_address},
        time::SKEW,
    },
    pb,
    policy::Role,
    records,
};

/// What stands between operator and sign-in in the SPIFFE ID of a sign-in's certificate.
pub(super) const INFIX: &str = "/sign-in/";

/// Who an operator is that came by sign-in.
#[derive(Clone, Debug)]
pub struct Person {
    /// As events name the person.
    pub text: String,
    /// The sign-in.
    pub(super) id: PersonId,
    /// Who it is at the provider: the same at each sign-in, and as each operator.
    identity: Digest,
    /// The verified mail address; empty for none.
    email: String,
    /// What it is called, and its ids.
    called: Called,
    expires: Timestamp,
}

impl Person {
    /// Who it is at the provider: the hash of issuer and subject, the same at each sign-in and as each operator.
    #[must_use]
    pub fn identity(&self) -> Digest {
        self.identity
    }

    /// By what it is found later whether it was signed out or has left.
    #[must_use]
    pub fn voter(&self) -> Voter {
        Voter {
            names: self.called.names.iter().cloned().collect(),
            subjects: self.called.subjects.iter().cloned().collect(),
        }
    }

    /// Whether an owner of grants is this person, by the verified mail address.
    #[must_use]
    pub fn is(&self, owner: &str) -> bool {
        same_address(&self.email, owner)
    }
}

impl Broker {
    /// What it takes to sign in.
    ///
    /// # Errors
    /// When nobody does here.
    pub fn get_sign_in(&self) -> Result<pb::GetSignInResponse, Refusal> {
        let rules = &self.door()?.rules;
        Ok(pb::GetSignInResponse {
            issuer: rules.issuer.url.clone(),
            client_id: rules.issuer.audience.clone(),
            scopes: rules.scopes.clone(),
            nonce_required: rules.require_nonce,
        })
    }

    /// Gives an operator's certificate for an ID token and a key.
    ///
    /// # Errors
    /// What is wrong with the token stands in an event for operators; the caller learns only whether to try again.
    pub async fn sign_in(
        &self,
        request: pb::SignInRequest,
        source: Option<SocketAddr>,
    ) -> Result<pb::SignInResponse, Refusal> {
        let door = self.door()?;
        let csr = parse_csr(&request.csr_der).map_err(|error| Refusal::invalid("csr_der", error.to_string()))?;
        let proof = match self.person(door, &request.id_token, &csr).await {
            Ok(proof) => proof,
            Err(fault) => {
                self.sign_in_refused(source, None, IdentityRefusal::Refused, &fault.to_string());
                return Err(Refusal::Identity(federate::told(&fault)));
            }
        };
        match self.let_in(door, &proof, &csr, &request.operator, source).await {
            Err(Refusal::Identity(refusal)) => {
                self.sign_in_refused(source, Some(&proof), refusal, &refusal.to_string());
                Err(Refusal::Identity(refusal))
            }
            outcome => {
                let word = if outcome.is_ok() { "allowed" } else { "failed" };
                metrics::counter!("mayfly_sign_ins_total", "outcome" => word).increment(1);
                outcome
            }
        }
    }

    async fn person(&self, door: &Door, token: &str, csr: &Csr) -> Result<PersonProof, TokenFault> {
        let token = UnverifiedToken::parse(token)?;
        // Only the one provider is ever asked for keys.
        if token.claimed_issuer() != door.rules.issuer.url {
            return Err(TokenFault::OtherProvider(token.shown_issuer()));
        }
        let keys = door.provider.keys_for(token.claimed_key_id(), self.now()).await?;
        token.verify_person(&door.rules, &keys, &csr.spki_sha256().to_string(), self.now())
    }

    async fn let_in(
        &self,
        door: &Door,
        proof: &PersonProof,
        csr: &Csr,
        wanted: &str,
        source: Option<SocketAddr>,
    ) -> Result<pb::SignInResponse, Refusal> {
        let now = self.now();
        let called = called(proof);
        if self.people.is_closed_to(&called, proof.issued) {
            return Err(Refusal::Identity(IdentityRefusal::Closed));
        }
        if !self.is_known_to_directory(door, proof.directory_id.as_deref(), proof.email.as_deref()) {
            return Err(Refusal::Identity(IdentityRefusal::NotProvisioned));
        }
        let rule = self.rule(door, proof, wanted)?;
        // Those of an operator may have been ended as a whole.
        let as_operator = Called { operator: Some(rule.operator.to_string()), ..Called::default() };
        if self.people.is_closed_to(&as_operator, proof.issued) {
            return Err(Refusal::Identity(IdentityRefusal::Closed));
        }
        let id = PersonId::fresh()?;
        let (minted, expires) = self.mint_sign_in(door, csr, &rule.operator, id, now)?;
        let record = records::SignInRecord {
            operator: rule.operator.to_string(),
            subject: proof.subject.clone(),
            email: proof.email.clone().unwrap_or_default(),
            names: proof.names.clone(),
            rule_sha256: door.rules.id(rule).0.to_vec(),
            certificate_sha256: minted.sha256.0.to_vec(),
            issued: now.millis(),
            expires: expires.millis(),
            directory_id: proof.directory_id.clone().unwrap_or_default(),
            ..Default::default()
        };
        let mut began = event::own("sign_in.began", now);
        began.decision = event::ALLOWED.into();
        began.actor = format!("operator:{}/{}", rule.operator, proof.text());
        began.proof = proof.token.to_string();
        began.source = source_text(source);
        began.credential_sha256 = minted.sha256.to_string();
        began.expires = Some(event::stamp(expires));
        began.details = vec![
            format!("sign_in={id}"),
            format!("issuer={}", door.rules.issuer.url),
            format!("subject={}", proof.shown_subject()),
        ];
        let (key, token_until) = (csr.spki_sha256(), proof.forgotten.after(SKEW));
        let draft = SignInDraft { id, record, token: proof.token, key, token_until, event: began, now };
        self.ledger.sign_in(draft).await?;
        let identity = identity(door, &proof.subject);
        let person = Person { text: proof.text(), id, identity, email: String::new(), called, expires };
        let session = self.session(&rule.operator, &person)?;
        Ok(pb::SignInResponse { chain_der: minted.chain_der, session: Some(session) })
    }

    /// Whether somebody may sign in as far as the directory goes.
    fn is_known_to_directory(&self, door: &Door, directory_id: Option<&str>, email: Option<&str>) -> bool {
        let by_claim = door.rules.directory_claim.is_some();
        !door.rules.require_provisioned || self.people.is_provisioned(directory_id, by_claim, email)
    }

    /// The first rule that fits and whose operator the trust map has, or the one for the operator that is wanted.
    fn rule<'a>(&self, door: &'a Door, proof: &PersonProof, wanted: &str) -> Result<&'a SignInRule, Refusal> {
        let global = self.registry.global();
        let fits = |rule: &&SignInRule| {
            let asked = wanted.is_empty() || rule.operator.as_str() == wanted;
            asked && proof.fits(rule) && global.operators.contains_key(&rule.operator)
        };
        door.rules.rules.iter().find(fits).ok_or(Refusal::Identity(IdentityRefusal::NotMapped))
    }

    fn mint_sign_in(
        &self,
        door: &Door,
        csr: &Csr,
        operator: &OperatorName,
        id: PersonId,
        now: Timestamp,
    ) -> Result<(MintedLeaf, Timestamp), Refusal> {
        let issuing = self.issuing()?;
        let not_after = now.after(door.rules.life).floor_second().min(issuing.not_after());
        let validity = Validity { not_before: now.before(SKEW), not_after };
        let (domain, path) = (self.settings.trust_domain.as_str(), format!("{INFIX}{id}"));
        let minted = ca::mint_sign_in(&issuing, csr, domain, operator, &path, validity);
        Ok((minted.map_err(super::keys::not_issued)?, not_after))
    }

    /// The person behind a sign-in's certificate, while everything that it came of still holds.
    ///
    /// # Errors
    /// [`Refusal::Unproven`] otherwise.
    pub(super) fn signed_in(
        &self,
        id: &str,
        operator: &OperatorName,
        certificate: &CertificateProof,
    ) -> Result<Person, Refusal> {
        const OVER: Refusal = Refusal::Unproven("your sign-in is over; sign in again with `mayfly login`");
        let door = self.people.door.as_ref().ok_or(OVER)?;
        let id: PersonId = id.parse().map_err(|()| OVER)?;
        let record = self.ledger.sign_in_row(&id)?.ok_or(OVER)?;
        let of_this = |bytes: &[u8], digest: &Digest| Digest::from_slice(bytes).is_some_and(|own| own.matches(digest));
        let rule = Digest::from_slice(&record.rule_sha256).ok_or(OVER)?;
        let called = Called {
            names: record.names.iter().chain([&record.email]).map(|name| folded(name)).collect(),
            subjects: ids(&record.subject, Some(&record.directory_id)),
            operator: Some(operator.to_string()),
        };
        let directory_id = Some(record.directory_id.as_str()).filter(|id| !id.is_empty());
        let email = Some(record.email.as_str()).filter(|email| !email.is_empty());
        let holds = record.operator == operator.as_str()
            && of_this(&record.certificate_sha256, &certificate.sha256)
            && record.incarnation == self.ledger.basis().0
            && record.expires > self.now().millis()
            && door.rules.has(&rule, operator)
            && self.is_known_to_directory(door, directory_id, email)
            && !self.people.is_closed_to(&called, Timestamp::from_millis(record.issued));
        if !holds {
            return Err(OVER);
        }
        let text = if record.email.is_empty() { &record.subject } else { &record.email };
        Ok(Person {
            text: crate::identity::oidc::shown(text),
            id,
            identity: identity(door, &record.subject),
            email: record.email.clone(),
            called,
            expires: Timestamp::from_millis(record.expires),
        })
    }

    /// Who the caller's sign-in makes it.
    ///
    /// # Errors
    /// When it came by none that holds.
    pub fn get_session(&self, caller: &Caller) -> Result<pb::GetSessionResponse, Refusal> {
        let operator = self.operator(caller)?;
        let person = operator.person.as_ref().ok_or(Refusal::Unproven(NO_SIGN_IN))?;
        Ok(pb::GetSessionResponse { session: Some(self.session(&operator.name, person)?) })
    }

    /// Ends the caller's sign-in.
    ///
    /// # Errors
    /// When it came by none that holds, or the store failed.
    pub async fn sign_out(&self, caller: &Caller) -> Result<pb::SignOutResponse, Refusal> {
        let operator = self.operator(caller)?;
        let person = operator.person.as_ref().ok_or(Refusal::Unproven(NO_SIGN_IN))?;
        let now = self.now();
        let mut ended = event::by(caller, operator.actor(), "sign_in.ended", now);
        ended.details.push(format!("sign_in={}", person.id));
        let (changed, _) = self.ledger.sign_out(person.id, ended, now).await?;
        if let Some(certificate) = caller.certificate() {
            self.close_connections(&certificate.sha256);
        }
        Ok(pb::SignOutResponse { changed })
    }

    /// Ends all sign-ins of a person, or as an operator, that began before now.
    ///
    /// # Errors
    /// When the operator is no admin of everything, or the store failed.
    pub async fn end_sign_ins(
        &self,
        caller: &Caller,
        request: pb::EndSignInsRequest,
    ) -> Result<pb::EndSignInsResponse, Refusal> {
        let operator = self.operator(caller)?;
        operator.require(Role::Admin)?;
        operator.require_everywhere()?;
        check_reason(&request.reason)?;
        let called = match (request.person.as_str(), request.operator.as_str()) {
            (person, "") if !person.is_empty() => {
                if person.len() > 255 || person.chars().any(char::is_control) {
                    return Err(Refusal::invalid("person", "must have 1 to 255 bytes without control characters"));
                }
                let subjects = [person.to_owned()].into_iter().collect();
                Called { subjects, ..Called::by_name(person) }
            }
            ("", name) if !name.is_empty() => {
                let name: OperatorName = view::id("operator", name)?;
                Called { operator: Some(name.to_string()), ..Called::default() }
            }
            _ => return Err(Refusal::invalid("person", "or operator must be set, and not both")),
        };
        let _writing = self.people.writing.lock().await;
        let now = self.now();
        let (id, mut mark) = self.mark(&called, CLOSINGS_MOST, now)?;
        mark.ended_until = now.millis();
        let mut ended = event::by(caller, operator.actor(), "sign_in.all_ended", now);
        ended.reason.clone_from(&request.reason);
        ended.details.push(match &called.operator {
            Some(operator) => format!("operator={operator}"),
            None => format!("person={}", request.person),
        });
        // What cannot be read closes the door to whom it is about; an admin who has looked opens it again so.
        let mut gone = self.people.damaged(&called);
        if !gone.is_empty() {
            ended.details.push(format!("damaged_rows_removed={}", gone.len()));
        }
        gone.extend(self.idle_marks(now).into_iter().filter(|idle| *idle != id));
        let receipt = self.put_people(vec![(id, mark)], gone, vec![ended], now).await?;
        Ok(pb::EndSignInsResponse { revision: Some(revision(&receipt)) })
    }

    fn door(&self) -> Result<&Door, Refusal> {
        self.people.door.as_ref().ok_or(Refusal::Unknown("sign-in"))
    }

    fn session(&self, operator: &OperatorName, person: &Person) -> Result<pb::Session, Refusal> {
        let global = self.registry.global();
        let known = global.operators.get(operator).ok_or(Refusal::Unknown("operator"))?;
        let shown = view::operator(operator, known, self.settings.trust_domain.as_str());
        Ok(pb::Session {
            operator: operator.to_string(),
            person: person.text.clone(),
            role: shown.role,
            tenants: shown.tenants,
            partners: shown.partners,
            expires: Some(event::stamp(person.expires)),
        })
    }

    /// Tells operators why somebody could not sign in: in the broker's own stream, the first of a minute.
    fn sign_in_refused(
        &self,
        source: Option<SocketAddr>,
        proof: Option<&PersonProof>,
        refusal: IdentityRefusal,
        why: &str,
    ) {
        let now = self.now();
        metrics::counter!("mayfly_sign_ins_total", "outcome" => "refused").increment(1);
        tracing::info!(source = ?source, why, "a sign-in was refused");
        // Strangers do not take the room of those whom the provider knows.
        if !self.refusals.tells(if proof.is_some() { "sign-in" } else { "" }, now) {
            return;
        }
        let mut refused = event::own("sign_in.refused", now);
        refused.decision = event::REFUSED.into();
        refused.actor = "unknown".into();
        refused.source = source_text(source);
        refused.reason = refusal.reason().to_owned();
        refused.details.push(format!("why={why}"));
        if let Some(proof) = proof {
            refused.proof = proof.token.to_string();
            refused.details.push(format!("person={}", proof.text()));
            refused.details.push(format!("subject={}", proof.shown_subject()));
        }
        self.note_later(vec![refused], now);
    }
}

/// What has not happened yet shows as zero, so that a rate sees its first time.
pub(super) fn begin_counting() {
    for word in ["allowed", "refused", "failed"] {
        metrics::counter!("mayfly_sign_ins_total", "outcome" => word).increment(0);
    }
}

/// An issuer's URL holds no line break, so that no two people share a hash.
fn identity(door: &Door, subject: &str) -> Digest {
    Digest::of_parts(&[b"person\n", door.rules.issuer.url.as_bytes(), b"\n", subject.as_bytes()])
}

/// The ids of a person, at the provider and at the directory.
fn ids(subject: &str, directory_id: Option<&String>) -> BTreeSet<String> {
    let directory_id = directory_id.filter(|id| !id.is_empty()).cloned();
    [subject.to_owned()].into_iter().chain(directory_id).collect()
}

fn called(proof: &PersonProof) -> Called {
    Called {
        names: proof.names.iter().cloned().collect(),
        subjects: ids(&proof.subject, proof.directory_id.as_ref()),
        operator: None,
    }
}

pub(super) fn source_text(source: Option<SocketAddr>) -> String {
    source.map_or_else(|| "unix".to_owned(), |source| source.to_string())
}

const NO_SIGN_IN: &str = "you came by no sign-in";

#[cfg(test)]
mod tests;
