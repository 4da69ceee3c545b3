//! Names: federations, nodes, datasets, and the partition they add up to.
//!
//! Every name is checked when it is made, so code that holds one never checks
//! it again. Names are cheap to clone.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// Longest name in bytes: a DNS label, because a node's name is one in its
/// certificate.
pub const NAME_BYTES_MAX: usize = 63;

/// The dataset that holds members, keys and the catalogue of a federation.
pub const FEDERATION_DATASET: &str = "_federation";

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty, too long, or with a character outside `[a-z0-9-]`.
    #[error(
        "“{0}”不是名称：须为 1 至 63 个 a-z、0-9 或 '-' / '{0}' is not a name: 1 to 63 characters of a-z, 0-9 and '-'"
    )]
    Name(String),
    /// Not `dataset/origin` or `dataset/origin/audience`.
    #[error(
        "“{0}”不是分区，须写成 数据集/来源 / '{0}' is not a partition: write dataset/origin, or dataset/origin/audience"
    )]
    Partition(String),
}

fn is_name(text: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(Arc<str>);

        impl $type {
            /// Checks `text` and makes a name of it.
            pub fn new(text: &str) -> Result<Self, NameError> {
                let valid: fn(&str) -> bool = $valid;
                if valid(text) {
                    Ok(Self(text.into()))
                } else {
                    Err(NameError::Name(text.chars().take(80).collect()))
                }
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $type {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(&text)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0.as_ref().to_owned()
            }
        }
    };
}

name!(
    /// One trust domain with one root CA, for example `zhengzhou`.
    FederationId,
    is_name
);
name!(
    /// A daemon's identity within its federation, usually a GB/T 2260 division
    /// code such as `410122`.
    NodeId,
    is_name
);
name!(
    /// A dataset's name, for example `enterprise`. Names that begin with `_`
    /// belong to the system; today there is one, `_federation`.
    DatasetId,
    |text| is_name(text) || text == FEDERATION_DATASET
);

impl DatasetId {
    /// The system dataset of members, keys and schemas.
    pub fn federation() -> Self {
        Self(FEDERATION_DATASET.into())
    }

    /// Whether this is the system's own dataset, which nobody imports into.
    pub fn is_system(&self) -> bool {
        self.as_str() == FEDERATION_DATASET
    }
}

/// For whom a partition is made.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Audience {
    /// Whoever may follow the origin's data; written `*`.
    All,
    /// A view made for one reader.
    Node(NodeId),
}

impl Audience {
    /// `*` or the reader's name.
    pub fn as_str(&self) -> &str {
        match self {
            Audience::All => "*",
            Audience::Node(node) => node.as_str(),
        }
    }

    /// Reads [`Audience::as_str`] back.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        match text {
            "*" => Ok(Audience::All),
            name => Ok(Audience::Node(NodeId::new(name)?)),
        }
    }
}

/// The unit of ownership, of replication and of failure. Only `origin` ever
/// writes it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "RawPartitionId", into = "RawPartitionId")]
pub struct PartitionId {
    /// The trust domain.
    pub federation: FederationId,
    /// The table.
    pub dataset: DatasetId,
    /// The only node that writes it.
    pub origin: NodeId,
    /// Who reads it.
    pub audience: Audience,
}

impl PartitionId {
    /// The origin's own partition of `dataset`, for every entitled reader.
    pub fn own(federation: &FederationId, dataset: &DatasetId, origin: &NodeId) -> Self {
        Self {
            federation: federation.clone(),
            dataset: dataset.clone(),
            origin: origin.clone(),
            audience: Audience::All,
        }
    }

    /// Parses `dataset/origin` or `dataset/origin/audience`.
    pub fn parse(federation: &FederationId, text: &str) -> Result<Self, NameError> {
        let wrong = || NameError::Partition(text.chars().take(200).collect());
        let mut parts = text.split('/');
        let (Some(dataset), Some(origin)) = (parts.next(), parts.next()) else {
            return Err(wrong());
        };
        let audience = parts.next().unwrap_or("*");
        if parts.next().is_some() {
            return Err(wrong());
        }
        Ok(Self {
            federation: federation.clone(),
            dataset: DatasetId::new(dataset)?,
            origin: NodeId::new(origin)?,
            audience: Audience::parse(audience)?,
        })
    }

    /// The four parts joined by `/`: one text a partition, in sort order.
    pub fn full_name(&self) -> String {
        format!("{}/{}/{}/{}", self.federation, self.dataset, self.origin, self.audience.as_str())
    }

    /// Reads [`PartitionId::full_name`] back; unlike in [`PartitionId::parse`]
    /// no part may be left out, so that a partition has one spelling on the wire.
    pub fn parse_full(text: &str) -> Result<Self, NameError> {
        let (federation, rest) = text
            .split_once('/')
            .filter(|(_, rest)| rest.split('/').count() == 3)
            .ok_or_else(|| NameError::Partition(text.chars().take(200).collect()))?;
        Self::parse(&FederationId::new(federation)?, rest)
    }
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.dataset, self.origin)?;
        match &self.audience {
            Audience::All => Ok(()),
            Audience::Node(node) => write!(f, "/{node}"),
        }
    }
}

impl fmt::Debug for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.full_name())
    }
}

/// The shape that crosses the wire: the full name as one text.
#[derive(Serialize, Deserialize)]
struct RawPartitionId(String);

impl From<PartitionId> for RawPartitionId {
    fn from(partition: PartitionId) -> Self {
        Self(partition.full_name())
    }
}

impl TryFrom<RawPartitionId> for PartitionId {
    type Error = NameError;
    fn try_from(raw: RawPartitionId) -> Result<Self, NameError> {
        Self::parse_full(&raw.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_outside_the_alphabet_are_refused() {
        for bad in ["", "A", "a_b", "a/b", "县", "a b", &"x".repeat(64), "_other"] {
            assert!(NodeId::new(bad).is_err(), "{bad}");
            assert!(DatasetId::new(bad).is_err(), "{bad}");
        }
        assert!(NodeId::new("410122").is_ok());
        assert!(DatasetId::new("_federation").is_ok());
        assert!(NodeId::new("_federation").is_err());
    }

    #[test]
    fn a_partition_reads_back_from_what_it_prints() {
        let federation = FederationId::new("zhengzhou").unwrap();
        for text in ["enterprise/410122", "enterprise/410122/410100"] {
            let partition = PartitionId::parse(&federation, text).unwrap();
            assert_eq!(partition.to_string(), text);
            assert_eq!(PartitionId::parse_full(&partition.full_name()).unwrap(), partition);
        }
        for bad in ["enterprise", "a/b/c/d", "a//b", "/a"] {
            assert!(PartitionId::parse(&federation, bad).is_err(), "{bad}");
        }
        assert!(PartitionId::parse_full("zhengzhou/enterprise/410122").is_err());
    }
}
