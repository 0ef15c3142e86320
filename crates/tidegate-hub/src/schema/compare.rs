//! Who may read whose records (12.5), and the first difference if he may not.

use std::fmt;

use thiserror::Error;

use super::{
    Base, Field, FingerprintMismatch, HubSchema, ParseError, Record, Schema, SchemaHash, SchemaVersion,
};

/// How much a consumer wants to be told apart (DH-176).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SchemaMode {
    /// Only records of exactly this layout.
    #[default]
    Strict,
    /// Producer and consumer may differ in optional fields at the end.
    AllowAppended,
    /// Bytes, without any type.
    Ignore,
}

/// What a consumer expects of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaExpectation {
    /// The layout that it was built for.
    pub schema: Schema,
    /// The version of that; its major must be the producer's.
    pub version: SchemaVersion,
    /// The lowest minor version of a producer that it accepts.
    pub min_minor: u16,
    /// How differences are judged.
    pub mode: SchemaMode,
}

impl SchemaExpectation {
    /// What a consumer of `T` expects: any minor of its major, strictly the same text.
    ///
    /// # Errors
    /// As [`Schema::of`].
    pub fn of<T: HubSchema>() -> Result<Self, ParseError> {
        let (schema, version) = (Schema::of::<T>()?, T::VERSION);
        Ok(Self { schema, version, min_minor: 0, mode: SchemaMode::Strict })
    }
}

/// What a block or the broker says about the records of a channel or zone.
#[derive(Clone, Copy, Debug)]
pub struct Offer<'a> {
    /// Hash of the text; zeros for untyped bytes.
    pub hash: SchemaHash,
    /// Version that the producer gave.
    pub version: SchemaVersion,
    /// The text, if it was sent along.
    pub text: Option<&'a str>,
}

/// That a consumer may read the records, and how much of them both sides know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agreement {
    /// Both have the same text; records have this many bytes.
    Identical {
        /// Bytes of a record.
        size: u32,
    },
    /// The producer has optional fields that this consumer does not know.
    ProducerAppended {
        /// End of the last field that both know.
        shared: u32,
    },
    /// This consumer has optional fields that the producer does not write; they read as nothing.
    ConsumerAppended {
        /// End of the last field that both know.
        shared: u32,
    },
    /// Nobody compared anything: bytes only.
    Untyped,
}

impl Agreement {
    /// The first bytes of a record, which both sides understand alike.
    pub fn shared(&self) -> u32 {
        match *self {
            Self::Identical { size: shared }
            | Self::ProducerAppended { shared }
            | Self::ConsumerAppended { shared } => shared,
            Self::Untyped => 0,
        }
    }

    /// Whether a field that ends before byte `end` is in the producer's records (DH-173).
    pub fn has(&self, end: usize) -> bool {
        u32::try_from(end).is_ok_and(|end| end <= self.shared())
    }
}

/// Judges whether records of `offer` can be read by who expects `expected` (DH-176, DH-177). A text is checked against its
/// hash first, whatever the mode (DH-180).
///
/// # Errors
/// [`SchemaMismatch`], which names the first difference.
pub fn compare(expected: &SchemaExpectation, offer: &Offer<'_>) -> Result<Agreement, SchemaMismatch> {
    judge(expected, offer).map_err(|first_difference| SchemaMismatch {
        expected: expected.schema.hash(),
        expected_version: expected.version,
        found: offer.hash,
        found_version: offer.version,
        first_difference: Box::new(first_difference),
    })
}

fn judge(expected: &SchemaExpectation, offer: &Offer<'_>) -> Result<Agreement, Difference> {
    if let Some(text) = offer.text {
        offer.hash.check_text(text)?;
    }
    if expected.mode == SchemaMode::Ignore {
        return Ok(Agreement::Untyped);
    }
    if offer.hash.is_untyped() {
        return Err(Difference::Untyped);
    }
    let agreement = if offer.hash == expected.schema.hash() {
        Agreement::Identical { size: expected.schema.size() }
    } else {
        let found = Schema::parse(offer.text.ok_or(Difference::Hash)?)?;
        let agreement = appended(&expected.schema, &found)?;
        if expected.mode == SchemaMode::Strict {
            return Err(Difference::of_appended(&expected.schema, &found));
        }
        agreement
    };
    let (ours, theirs) = (expected.version, offer.version);
    if ours.major != theirs.major {
        return Err(Difference::Major { expected: ours.major, found: theirs.major });
    }
    if theirs.minor < expected.min_minor {
        return Err(Difference::Minor { expected: expected.min_minor, found: theirs.minor });
    }
    Ok(agreement)
}

/// Compares two texts that may differ in optional fields at the end. Padding at the end of either is no field: it is where
/// the next version appends.
fn appended(ours: &Schema, theirs: &Schema) -> Result<Agreement, Difference> {
    same("record name", "", &ours.name(), &theirs.name())?;
    let (our_fields, their_fields) = (without_tail(ours.fields()), without_tail(theirs.fields()));
    let common = our_fields.len().min(their_fields.len());
    our_fields.iter().zip(their_fields).try_for_each(|(ours, theirs)| same_field("", ours, theirs))?;
    if let Some(field) = our_fields.iter().skip(common).find(|field| is_required(field)) {
        return Err(Difference::Missing { field: field.name().to_owned() });
    }
    if let Some(field) = their_fields.iter().skip(common).find(|field| is_required(field)) {
        return Err(Difference::Required { field: field.name().to_owned() });
    }
    let shared = our_fields.get(..common).and_then(<[Field]>::last).map_or(0, Field::end);
    if our_fields.len() > common {
        return Ok(Agreement::ConsumerAppended { shared });
    }
    if theirs.size() < ours.size() {
        return Err(Difference::Shorter { expected: ours.size(), found: theirs.size() });
    }
    Ok(Agreement::ProducerAppended { shared })
}

fn without_tail(fields: &[Field]) -> &[Field] {
    match fields {
        [rest @ .., last] if last.is_padding() => rest,
        all => all,
    }
}

fn is_required(field: &Field) -> bool {
    !field.is_optional() && !field.is_padding()
}

fn same_field(outer: &str, ours: &Field, theirs: &Field) -> Result<(), Difference> {
    let path = format!("{outer}{}", ours.name());
    same("name", &path, &ours.name(), &theirs.name())?;
    same("number of elements", &path, &Count(ours.ty().count()), &Count(theirs.ty().count()))?;
    match (ours.ty().base(), theirs.ty().base()) {
        (Base::Record(ours), Base::Record(theirs)) => same_record(&path, ours, theirs)?,
        (ours, theirs) => same("type", &path, &Word(ours), &Word(theirs))?,
    }
    same("mark", &path, &Mark(ours.is_optional()), &Mark(theirs.is_optional()))?;
    same("offset", &path, &ours.offset(), &theirs.offset())
}

fn same_record(path: &str, ours: &Record, theirs: &Record) -> Result<(), Difference> {
    same("type", path, &ours.name(), &theirs.name())?;
    let inner = format!("{path}.");
    ours.fields()
        .iter()
        .zip(theirs.fields())
        .try_for_each(|(ours, theirs)| same_field(&inner, ours, theirs))?;
    if let Some(field) = ours.fields().get(theirs.fields().len()) {
        return Err(Difference::Missing { field: format!("{inner}{}", field.name()) });
    }
    theirs
        .fields()
        .get(ours.fields().len())
        .map_or(Ok(()), |field| Err(Difference::Required { field: format!("{inner}{}", field.name()) }))
}

fn same<V: PartialEq + fmt::Display>(
    what: &'static str,
    field: &str,
    ours: &V,
    theirs: &V,
) -> Result<(), Difference> {
    if ours == theirs {
        return Ok(());
    }
    let (expected, found) = (ours.to_string(), theirs.to_string());
    Err(Difference::Changed { field: field.to_owned(), what, expected, found })
}

/// Type of one element, for people; nested records are compared field by field.
#[derive(PartialEq)]
struct Word<'a>(&'a Base);

impl fmt::Display for Word<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Base::Prim(prim) => prim.fmt(f),
            Base::Record(record) => f.write_str(record.name()),
        }
    }
}

#[derive(PartialEq)]
struct Count(Option<u32>);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(count) => write!(f, "[{count}]"),
            None => f.write_str("no array"),
        }
    }
}

#[derive(PartialEq)]
struct Mark(bool);

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0 { "optional" } else { "required" })
    }
}

/// A consumer that cannot read the records of a producer (DH-177).
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "schema mismatch: {first_difference} (expected schema {expected} version {expected_version}, found {found} version \
     {found_version})"
)]
pub struct SchemaMismatch {
    /// Hash of the consumer's schema.
    pub expected: SchemaHash,
    /// Version of the consumer's schema.
    pub expected_version: SchemaVersion,
    /// Hash of the producer's schema.
    pub found: SchemaHash,
    /// Version of the producer's schema.
    pub found_version: SchemaVersion,
    /// What differs first.
    pub first_difference: Box<Difference>,
}

impl SchemaMismatch {
    /// The code that a broker sends with `SCHEMA_MISMATCH`, or with `ERROR` for a text that belies its hash (13.4).
    pub fn code(&self) -> &'static str {
        match *self.first_difference {
            Difference::Hash | Difference::Untyped => "HASH",
            Difference::Major { .. } | Difference::Minor { .. } => "VERSION",
            Difference::Inconsistent(_) => "FINGERPRINT_INCONSISTENT",
            _ => "INCOMPATIBLE",
        }
    }
}

/// The first thing in which two schemas differ, from the consumer's side: "expected" is the consumer's.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Difference {
    /// The producer did not say what its bytes are.
    #[error(
        "expected typed records, found untyped bytes; read them with SchemaMode::Ignore or give the producer a schema"
    )]
    Untyped,
    /// Only the hashes are known.
    #[error(
        "the hashes differ, and without the producer's text no field can be named; see `tidegate hub schema show`"
    )]
    Hash,
    /// Something about a field, or the record's name if `field` is empty.
    #[error("{}expected {what} {expected}, found {found}", Named(field))]
    Changed {
        /// Path of the field, such as `pos.x`.
        field: String,
        /// What about it.
        what: &'static str,
        /// The consumer's.
        expected: String,
        /// The producer's.
        found: String,
    },
    /// A field that the producer does not have.
    #[error("field {field:?}: expected, but the producer has no such field")]
    Missing {
        /// Path of the field.
        field: String,
    },
    /// A field that the producer added without marking it as optional.
    #[error(
        "field {field:?}: found an added field that is required; append it as optional, or raise the major version"
    )]
    Required {
        /// Path of the field.
        field: String,
    },
    /// Only optional fields at the end differ, which this consumer did not allow.
    #[error("field {field:?}: only one side has this optional field; SchemaMode::AllowAppended accepts that")]
    Appended {
        /// The first such field.
        field: String,
    },
    /// Both have the same fields, but records of other size or alignment.
    #[error(
        "expected records of {expected} bytes aligned to {expected_align}, found {found} aligned to {found_align}"
    )]
    Extent {
        /// The consumer's size.
        expected: u32,
        /// The consumer's alignment.
        expected_align: u32,
        /// The producer's size.
        found: u32,
        /// The producer's alignment.
        found_align: u32,
    },
    /// Records that end before the consumer's do, without a field being absent.
    #[error("expected records of at least {expected} bytes, found {found}; align both alike")]
    Shorter {
        /// The consumer's size.
        expected: u32,
        /// The producer's size.
        found: u32,
    },
    /// Another major version.
    #[error("expected major version {expected}, found {found}; build this program for the new version")]
    Major {
        /// The consumer's.
        expected: u16,
        /// The producer's.
        found: u16,
    },
    /// A producer that is too old.
    #[error("expected minor version {expected} or newer, found {found}; upgrade the producer")]
    Minor {
        /// The lowest that the consumer accepts.
        expected: u16,
        /// The producer's.
        found: u16,
    },
    /// A text that came with another hash (DH-180).
    #[error(transparent)]
    Inconsistent(#[from] FingerprintMismatch),
    /// A text that is no schema.
    #[error(transparent)]
    Unreadable(#[from] ParseError),
}

impl Difference {
    /// The first difference of two texts that agree up to what may be appended.
    fn of_appended(ours: &Schema, theirs: &Schema) -> Self {
        let mut pairs = ours.fields().iter().zip(theirs.fields());
        let common = pairs.by_ref().take_while(|(ours, theirs)| ours == theirs).count();
        let tail =
            |schema: &Schema| schema.fields().iter().skip(common).find(|field| field.is_optional()).cloned();
        tail(theirs).or_else(|| tail(ours)).map_or(
            Self::Extent {
                expected: ours.size(),
                expected_align: ours.align(),
                found: theirs.size(),
                found_align: theirs.align(),
            },
            |field| Self::Appended { field: field.name },
        )
    }
}

struct Named<'a>(&'a str);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "field {:?}: ", self.0) }
    }
}
