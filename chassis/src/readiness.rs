//! Which dependencies of a process are there, for `/readyz`.

use std::{
    collections::BTreeMap,
    fmt::Display,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::Serialize;

/// All dependencies of a process, each up or missing with a reason. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    states: Arc<Mutex<BTreeMap<&'static str, Option<String>>>>,
}

/// A dependency that is missing.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct Missing {
    pub dependency: &'static str,
    pub reason: String,
}

impl Readiness {
    /// Adds a dependency, missing until it is first said to be up.
    pub fn dependency(&self, name: &'static str) -> Dependency {
        self.lock().insert(name, Some("not reached yet".to_owned()));
        Dependency { name, readiness: self.clone() }
    }

    /// What is missing now; empty when all is there.
    pub fn missing(&self) -> Vec<Missing> {
        let states = self.lock();
        states
            .iter()
            .filter_map(|(name, reason)| reason.clone().map(|reason| Missing { dependency: name, reason }))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Option<String>>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One dependency's state, for the task that watches it.
#[derive(Clone, Debug)]
pub struct Dependency {
    name: &'static str,
    readiness: Readiness,
}

impl Dependency {
    /// It answers. Logged when it did not before.
    pub fn up(&self) {
        let before = self.readiness.lock().insert(self.name, None);
        if let Some(Some(_)) = before {
            tracing::info!(dependency = self.name, "the dependency is there");
        }
    }

    /// It does not answer. Logged when it did before, or for another reason.
    pub fn down(&self, reason: impl Display) {
        let reason = reason.to_string();
        let before = self.readiness.lock().insert(self.name, Some(reason.clone()));
        if before != Some(Some(reason.clone())) {
            tracing::warn!(dependency = self.name, reason, "the dependency is missing");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dependency_is_missing_until_it_is_up_and_again_when_it_goes() {
        let readiness = Readiness::default();
        let mysql = readiness.dependency("mysql");
        assert_eq!(readiness.missing()[0].reason, "not reached yet");
        mysql.up();
        assert!(readiness.missing().is_empty());
        mysql.down("connection refused");
        assert_eq!(readiness.missing(), [Missing { dependency: "mysql", reason: "connection refused".into() }]);
    }
}
