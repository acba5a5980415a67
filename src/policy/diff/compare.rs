//! Field by field: does it give or take?

use std::fmt::Display;

use ipnet::IpNet;

use crate::policy::{
    pattern::Pattern,
    sorted::{Reach, Sorted},
};

use super::ChangeKind;

/// What the fields of one thing say together.
#[derive(Debug, Default)]
pub(super) struct Compared {
    gives: bool,
    takes: bool,
    details: Vec<String>,
}

impl Compared {
    /// `None` when nothing differs. Taking outweighs giving.
    pub(super) fn result(self) -> Option<(ChangeKind, Vec<String>)> {
        let kind = match (self.takes, self.gives) {
            _ if self.details.is_empty() => return None,
            (true, _) => ChangeKind::Narrowed,
            (false, true) => ChangeKind::Widened,
            (false, false) => ChangeKind::Edited,
        };
        Some((kind, self.details))
    }

    /// A field without authority.
    pub(super) fn edit<T: PartialEq + Display>(&mut self, field: &str, old: &T, new: &T) {
        if old != new {
            self.details.push(format!("{field} {old} -> {new}"));
        }
    }

    /// A field that says where authority is: another place takes it from the old one.
    pub(super) fn moved<T: PartialEq + Display>(&mut self, field: &str, old: &T, new: &T) {
        self.takes |= old != new;
        self.edit(field, old, new);
    }

    /// A field of which more is more authority.
    pub(super) fn ordered<T: Copy + Ord>(&mut self, field: &str, old: T, new: T, spell: impl Fn(T) -> String) {
        self.takes |= new < old;
        self.gives |= new > old;
        self.edit(field, &spell(old), &spell(new));
    }

    /// A bound on how much may live: raising it gives, lowering it ends nothing that lives.
    pub(super) fn quota<T: Copy + Ord + Display>(&mut self, field: &str, old: T, new: T) {
        self.gives |= new > old;
        self.edit(field, &old, &new);
    }

    /// A list without authority.
    pub(super) fn edit_set<T: Ord + Display>(&mut self, field: &str, old: &Sorted<T>, new: &Sorted<T>) {
        let (lost, won) = (without(old, new), without(new, old));
        if !lost.is_empty() || !won.is_empty() {
            self.details.push(members(field, &lost, &won));
        }
    }

    /// A list of what is allowed.
    pub(super) fn set<T: Ord + Display>(&mut self, field: &str, old: &Sorted<T>, new: &Sorted<T>) {
        self.takes |= !without(old, new).is_empty();
        self.gives |= !without(new, old).is_empty();
        self.edit_set(field, old, new);
    }

    /// Networks that something is allowed from; none named stands for all.
    pub(super) fn networks(&mut self, field: &str, old: &Sorted<IpNet>, new: &Sorted<IpNet>) {
        let within = |all: &Sorted<IpNet>, one: &IpNet| all.iter().any(|network| network.contains(one));
        let covers = |all: &Sorted<IpNet>, some: &Sorted<IpNet>| {
            all.is_empty() || (!some.is_empty() && some.iter().all(|one| within(all, one)))
        };
        self.takes |= !covers(new, old);
        self.gives |= !covers(old, new);
        self.edit_set(field, old, new);
    }

    /// A list of what is allowed, where one entry can stand for many.
    pub(super) fn patterns(&mut self, field: &str, old: &Sorted<Pattern>, new: &Sorted<Pattern>) {
        self.takes |= !cover(new, old);
        self.gives |= !cover(old, new);
        self.edit_set(field, old, new);
    }

    /// What a right reaches.
    pub(super) fn reach<T: Ord + Display>(&mut self, field: &str, old: &Reach<T>, new: &Reach<T>) {
        self.takes |= !new.covers(old);
        self.gives |= !old.covers(new);
        match (old, new) {
            (Reach::All, Reach::All) => {}
            (Reach::All, Reach::Only(_)) => self.details.push(format!("{field} all -> {}", list(new))),
            (Reach::Only(_), Reach::All) => self.details.push(format!("{field} {} -> all", list(old))),
            (Reach::Only(before), Reach::Only(after)) => self.edit_set(field, before, after),
        }
    }
}

fn cover(wide: &[Pattern], narrow: &[Pattern]) -> bool {
    narrow.iter().all(|pattern| wide.iter().any(|other| other.covers(pattern)))
}

fn without<'a, T: Ord>(items: &'a Sorted<T>, others: &Sorted<T>) -> Vec<&'a T> {
    items.iter().filter(|item| !others.has(item)).collect()
}

fn members<T: Display>(field: &str, lost: &[&T], won: &[&T]) -> String {
    let lost = lost.iter().map(|item| format!(" -{item}"));
    let won = won.iter().map(|item| format!(" +{item}"));
    lost.chain(won).fold(field.to_owned(), |text, item| text + &item)
}

fn list<T: Display>(reach: &Reach<T>) -> String {
    match reach {
        Reach::All => "all".to_owned(),
        Reach::Only(items) => items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    }
}
