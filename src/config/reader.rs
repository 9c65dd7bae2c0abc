//! Reads settings one by one and keeps every error, so that all of them are reported in one go.

use super::settings::{Sources, variable};
use super::{ConfigError, ConfigErrors};

/// A value, or the mark that an error about it has been noted.
pub(super) type Read<T> = Result<T, Noted>;

/// An error has been noted in the [`Reader`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Noted;

/// A pass over the sources.
pub(super) struct Reader<'a> {
    sources: &'a Sources,
    errors: Vec<ConfigError>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(sources: &'a Sources) -> Self {
        Self {
            sources,
            errors: sources.unknown_variables().collect(),
        }
    }

    /// The setting's value or, where it is not given, an error.
    pub(super) fn required<T>(
        &mut self,
        name: &'static str,
        expected: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Read<T> {
        match self.optional(name, expected, parse)? {
            Some(value) => Ok(value),
            None => Err(self.missing(name, expected)),
        }
    }

    /// The setting's value or what `default` means.
    pub(super) fn or_default<T>(
        &mut self,
        name: &'static str,
        default: &str,
        expected: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Read<T> {
        match self.optional(name, expected, &parse)? {
            Some(value) => Ok(value),
            None => Ok(parse(default).expect("a default is a valid value")),
        }
    }

    /// The setting's value, `None` where it is not given.
    pub(super) fn optional<T>(
        &mut self,
        name: &'static str,
        expected: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Read<Option<T>> {
        let given = match self.sources.find(name) {
            Ok(Some(given)) => given,
            Ok(None) => return Ok(None),
            Err(contradiction) => {
                self.errors.push(contradiction);
                return Err(Noted);
            }
        };
        match parse(&given.text) {
            Ok(value) => Ok(Some(value)),
            Err(problem) => {
                self.errors.push(ConfigError {
                    origin: given.origin,
                    value: Some(given.text),
                    problem,
                    expected: expected.to_owned(),
                });
                Err(Noted)
            }
        }
    }

    /// Notes that `name` has to be given.
    pub(super) fn missing(&mut self, name: &'static str, expected: &str) -> Noted {
        self.note(ConfigError {
            origin: format!("{} (or --{name})", variable(name)),
            value: None,
            problem: "it is required and not set".to_owned(),
            expected: expected.to_owned(),
        })
    }

    /// Notes an error that is about more than one setting's value.
    pub(super) fn note(&mut self, error: ConfigError) -> Noted {
        self.errors.push(error);
        Noted
    }

    pub(super) fn finish(self) -> Result<(), ConfigErrors> {
        if self.errors.is_empty() {
            Ok(())
        } else {
            Err(ConfigErrors(self.errors))
        }
    }
}
