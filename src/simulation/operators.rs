//! What operators do to the ledger, by chance: cuts, bars, and a narrower trust map.

use std::time::Duration;

use super::{
    callers::{KEYS, PROOFS, tenant},
    ground::{GRANTS, PARTNERS},
    model::Doubt,
    said::{Not, Said},
    world::{Fine, World},
};
use crate::{
    ledger::{BarDraft, CutDraft, TrustCommit},
    model::{Digest, EndReason, Scope},
};

impl World {
    /// A scope that something can be cut or barred by.
    pub fn scope(&mut self) -> Scope {
        let (t, p) = (tenant(self.chance.below(2)), PARTNERS[self.chance.below(2)].parse().unwrap());
        match self.chance.weighted(&[(2, 0), (2, 1), (3, 2), (5, 3), (2, 4), (5, 5), (2, 6), (1, 7)]) {
            0 => Scope::Tenant(t),
            1 => Scope::Partner(p),
            2 => Scope::PartnerInTenant(t, p),
            3 => Scope::Grant(t, GRANTS[self.chance.below(2)].parse().unwrap()),
            4 => Scope::Workload(t, "runner".parse().unwrap()),
            5 => Scope::Proof(Digest::of(PROOFS[self.chance.below(3)])),
            6 => Scope::SigningKey(KEYS[self.chance.below(2)].to_owned()),
            _ => Scope::Everything,
        }
    }

    fn cut_draft(&self, scope: Scope, bar: bool) -> CutDraft {
        let now = self.now();
        CutDraft {
            scope,
            why: EndReason::Revoked,
            bar,
            operator: "olga".into(),
            reason: "test".into(),
            covers_until: now.after(Duration::from_hours(26)),
            event: self.event("scope.revoked", "", "", None),
            now,
            resets_time: false,
        }
    }

    pub fn cut_some(&mut self) -> Fine {
        let (scope, bar) = (self.scope(), self.chance.one_in(2));
        self.cut_raw(scope, bar)
    }

    pub fn cut_raw(&mut self, scope: Scope, bar: bool) -> Fine {
        let (broker, draft) = (self.broker(), self.cut_draft(scope.clone(), bar));
        self.ask(vec![Doubt::Scope(scope.clone())], async move {
            let at = broker.ledger.cut(draft).await.map(|(revoked, _)| revoked.cut).map_err(Not::from);
            Said::Cut(scope, bar, at)
        })
    }

    pub fn bar_raw(&mut self) -> Fine {
        let (scope, suspend) = (self.scope(), self.chance.one_in(2));
        let (broker, draft) = (self.broker(), self.bar_draft(scope.clone(), suspend));
        self.ask(vec![Doubt::Scope(scope.clone())], async move {
            let at = broker.ledger.bar(draft).await.map(|(_, receipt)| receipt.number()).map_err(Not::from);
            Said::Barred { scope, suspend, at }
        })
    }

    pub fn lift_some(&mut self) -> Fine {
        let open: Vec<_> =
            self.model.bars.iter().filter(|bar| bar.lifted.is_none()).map(|bar| bar.scope.clone()).collect();
        match self.chance.pick(&open).cloned() {
            Some(scope) => self.lift_raw(scope),
            None => Ok(()),
        }
    }

    pub fn lift_raw(&mut self, scope: Scope) -> Fine {
        let (broker, draft) = (self.broker(), self.bar_draft(scope.clone(), false));
        self.ask(vec![Doubt::Scope(scope.clone())], async move {
            let at = broker.ledger.lift(draft).await.map(|(_, receipt)| receipt.number()).map_err(Not::from);
            Said::Lifted(scope, at)
        })
    }

    fn bar_draft(&self, scope: Scope, suspend: bool) -> BarDraft {
        let event = self.event("scope.barred", "", "", None);
        BarDraft { scope, suspend, operator: "olga".into(), reason: "test".into(), event, now: self.now() }
    }

    /// A change of the trust map that takes authority away, beside whatever else is on its way.
    pub fn narrow_raw(&mut self) -> Fine {
        let grant = Scope::Grant(tenant(self.chance.below(2)), GRANTS[self.chance.below(2)].parse().unwrap());
        let (broker, changed) = (self.broker(), vec![grant.clone()]);
        let cut = if self.chance.one_in(2) { vec![grant] } else { Vec::new() };
        let commit = TrustCommit {
            changed: changed.clone(),
            cuts: cut.iter().map(|scope| self.cut_draft(scope.clone(), false)).collect(),
            events: vec![self.event("trust.changed", "", "", None)],
            ..TrustCommit::new(broker.ledger.basis().1, self.now())
        };
        let doubts = cut.iter().cloned().map(Doubt::Scope).collect();
        self.ask(doubts, async move {
            let at = broker.ledger.apply(commit, || ()).await.map(|receipt| receipt.number()).map_err(Not::from);
            Said::TrustChanged { changed, cut, at }
        })
    }
}
