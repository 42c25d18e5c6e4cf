//! A value of a closed list, as a flag takes it: whoever gives another one is told them all and the nearest, and a shell completes them.

use std::{error::Error, str::FromStr};

use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::{
    export::Format,
    model::{DeathReason, DecisionKind, Role, Severity},
};

/// What was decided.
pub fn decision() -> impl TypedValueParser<Value = DecisionKind> {
    one_of(DecisionKind::ALL.map(DecisionKind::as_str))
}

/// A severity.
pub fn severity() -> impl TypedValueParser<Value = Severity> {
    one_of(Severity::ALL.map(Severity::as_str))
}

/// Why a letter died.
pub fn reason() -> impl TypedValueParser<Value = DeathReason> {
    one_of(DeathReason::ALL.map(DeathReason::as_str))
}

/// A role of the API.
pub fn role() -> impl TypedValueParser<Value = Role> {
    one_of(Role::ALL.map(Role::as_str))
}

/// A format of exports.
pub fn format() -> impl TypedValueParser<Value = Format> {
    one_of(Format::ALL.map(Format::as_str))
}

fn one_of<T, const N: usize>(names: [&'static str; N]) -> impl TypedValueParser<Value = T>
where
    T: FromStr<Err: Error + Send + Sync + 'static> + Clone + Send + Sync + 'static,
{
    PossibleValuesParser::new(names).try_map(|name| name.parse())
}
