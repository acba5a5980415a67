//! A tenant's policies, or the guardrails, compiled when they are first needed.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock, RwLock},
};

use super::{
    cell::{Cell, Key},
    compile::{Compiled, Side, compile},
    text::{PolicyFile, PolicyTexts},
};

/// What follows from policy texts alone. Not part of their value.
#[derive(Clone, Debug, Default)]
pub(in crate::policy) struct Sets(OnceLock<Arc<Inner>>);

/// Two trust maps do not differ in what follows from them.
impl PartialEq for Sets {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

#[derive(Debug, Default)]
pub(super) struct Inner {
    pub(super) enforce: Option<Loaded>,
    pub(super) shadow: Option<Loaded>,
    /// Of a tenant only.
    pub(super) cells: RwLock<HashMap<Key, Arc<Cell>>>,
}

/// A set, or why there is none any more: it was checked when it was applied, maybe by another version.
pub(super) type Loaded = Result<Arc<Compiled>, String>;

impl Sets {
    /// Of texts that were compiled to be checked.
    pub(in crate::policy) fn of_checked(enforce: Option<Arc<Compiled>>, shadow: Option<Arc<Compiled>>) -> Self {
        let inner = Inner { enforce: enforce.map(Ok), shadow: shadow.map(Ok), cells: RwLock::default() };
        Self(OnceLock::from(Arc::new(inner)))
    }

    /// Whether they are compiled.
    pub(in crate::policy) fn is_ready(&self) -> bool {
        self.0.get().is_some()
    }

    /// Compiles them, unless they are.
    pub(in crate::policy) fn compile(&self, texts: Option<&PolicyTexts>, side: Side) {
        self.of(texts, side);
    }

    /// What is compiled of them, or is now: that takes its time, so the broker sees to it before it asks.
    pub(super) fn of(&self, texts: Option<&PolicyTexts>, side: Side) -> &Inner {
        self.0.get_or_init(|| {
            let set = |files: &[PolicyFile]| (!files.is_empty()).then(|| load(files, side));
            let enforce = texts.and_then(|texts| set(&texts.enforce));
            let shadow = texts.and_then(|texts| set(&texts.shadow));
            Arc::new(Inner { enforce, shadow, cells: RwLock::default() })
        })
    }
}

fn load(files: &[PolicyFile], side: Side) -> Loaded {
    compile(files, side).map(Arc::new).map_err(|mistakes| {
        let first = mistakes.first();
        let why = first.map(|first| format!("{}:{}: {}", first.path, first.line, first.message)).unwrap_or_default();
        tracing::error!(%why, mistakes = mistakes.len(), "policies in force cannot be read: what they decide is refused");
        why
    })
}
