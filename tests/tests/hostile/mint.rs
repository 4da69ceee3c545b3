//! Certificates that no authority of ours would issue, signed with its key all
//! the same: what a thief of that key, a careless organisation's PKI or a member
//! could make.
//!
//! Not here: certificates as the hub issues them ([`World::issue`]).

use std::sync::Arc;

use certs::{
    authority::{CaRole, NodeKey},
    credentials::Credentials,
    identity::Identity,
};
use rcgen::{
    CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256,
    SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::{Duration, OffsetDateTime};

use crate::world::World;

/// What a node's certificate says; a right one is altered from.
pub struct Leaf {
    pub identity: Identity,
    pub uris: Vec<String>,
    pub dns_names: Vec<String>,
    pub usages: Vec<ExtendedKeyUsagePurpose>,
    /// From now.
    pub begins_in: Duration,
    /// Drawn if there is none.
    pub serial: Option<Vec<u8>>,
}

impl Leaf {
    /// As the hub's authority makes it.
    pub fn of(identity: Identity) -> Self {
        Self {
            uris: vec![identity.uri()],
            dns_names: vec![identity.dns_name()],
            usages: vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
            begins_in: -Duration::minutes(5),
            serial: None,
            identity,
        }
    }

    pub fn altered(identity: Identity, alter: impl FnOnce(&mut Self)) -> Self {
        let mut leaf = Self::of(identity);
        alter(&mut leaf);
        leaf
    }

    fn params(&self) -> CertificateParams {
        let mut params = CertificateParams::default();
        let uris = self.uris.iter().map(|uri| SanType::URI(uri.as_str().try_into().unwrap()));
        let names = self.dns_names.iter();
        let names = names.map(|name| SanType::DnsName(name.as_str().try_into().unwrap()));
        params.subject_alt_names = uris.chain(names).collect();
        params.extended_key_usages = self.usages.clone();
        params.is_ca = IsCa::ExplicitNoCa;
        params.serial_number = self.serial.clone().map(SerialNumber::from);
        params.not_before = OffsetDateTime::now_utc() + self.begins_in;
        params.not_after = params.not_before + Duration::days(1);
        params
    }

    /// A certificate that vouches for itself.
    pub fn self_signed(&self, world: &World) -> Arc<Credentials> {
        let key = key_pair();
        let leaf = self.params().self_signed(&key).unwrap();
        self.shown(world, vec![leaf.into()], &key)
    }

    /// Signed by the hub's issuing CA of this number.
    pub fn issued(&self, world: &World, number: u32) -> Arc<Credentials> {
        let dirs = world.hub_dirs();
        let key: NodeKey = dirs.keys.load(&CaRole::Issuing.key_file(number)).unwrap();
        self.signed(world, &[dirs.issuing(number).unwrap()], &pair_of(&key.private_key()))
    }

    /// Signed by whoever `above` begins with and has this key.
    pub fn signed(
        &self,
        world: &World,
        above: &[CertificateDer<'static>],
        key: &KeyPair,
    ) -> Arc<Credentials> {
        let own = key_pair();
        let issuer = Issuer::from_ca_cert_der(&above[0], key).unwrap();
        let leaf = self.params().signed_by(&own, &issuer).unwrap();
        self.shown(world, [&[leaf.into()], above].concat(), &own)
    }

    fn shown(
        &self,
        world: &World,
        chain: Vec<CertificateDer<'static>>,
        key: &KeyPair,
    ) -> Arc<Credentials> {
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        Arc::new(Credentials {
            chain,
            key,
            roots: world.credentials.roots.clone(),
            identity: self.identity.clone(),
        })
    }
}

/// The same with another chain.
pub fn with_chain(shown: &Credentials, chain: Vec<CertificateDer<'static>>) -> Arc<Credentials> {
    Arc::new(Credentials {
        chain,
        key: shown.key.clone_key(),
        roots: shown.roots.clone(),
        identity: shown.identity.clone(),
    })
}

/// What somebody shows, with somebody else's key.
pub fn with_key(shown: &Credentials, of: &Credentials) -> Arc<Credentials> {
    Arc::new(Credentials {
        chain: shown.chain.clone(),
        key: of.key.clone_key(),
        roots: shown.roots.clone(),
        identity: shown.identity.clone(),
    })
}

pub fn key_pair() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()
}

/// A key as rcgen signs with it.
pub fn pair_of(key: &PrivateKeyDer<'_>) -> KeyPair {
    let PrivateKeyDer::Pkcs8(der) = key else { panic!("keys are kept as PKCS#8") };
    KeyPair::from_pkcs8_der_and_sign_algo(der, &PKCS_ECDSA_P256_SHA256).unwrap()
}

/// The same certificate in other bytes: of an ECDSA signature (r, s) the other
/// one that verifies too, (r, n - s). Nobody's key is needed for it.
pub fn in_other_bytes(certificate: &CertificateDer<'_>) -> CertificateDer<'static> {
    let (_, certificate, _) = tlv(certificate);
    let (to_be_signed, _, rest) = tlv(certificate);
    let (algorithm, _, signature) = tlv(rest);
    let (_, bits, _) = tlv(signature);
    // Behind the number of unused bits.
    let (_, numbers, _) = tlv(&bits[1..]);
    let (r, _, s) = tlv(numbers);
    let (_, s, _) = tlv(s);
    let other = [r, &element(2, &unsigned(&order_minus(s)))].concat();
    let bits = [&[0], element(0x30, &other).as_slice()].concat();
    let signature = element(3, &bits);
    element(0x30, &[to_be_signed, algorithm, &signature].concat()).into()
}

/// A DER element at the beginning: all of it, its contents, what follows.
fn tlv(der: &[u8]) -> (&[u8], &[u8], &[u8]) {
    let (header, length) = match der[1] {
        short @ 0..0x80 => (2, usize::from(short)),
        long => {
            let count = usize::from(long & 0x7f);
            let length =
                der[2..2 + count].iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
            (2 + count, length)
        }
    };
    let (element, rest) = der.split_at(header + length);
    (element, &element[header..], rest)
}

fn element(tag: u8, contents: &[u8]) -> Vec<u8> {
    let length = contents.len();
    let header = match length {
        0..0x80 => vec![tag, length as u8],
        0x80..0x100 => vec![tag, 0x81, length as u8],
        _ => vec![tag, 0x82, (length >> 8) as u8, length as u8],
    };
    [header.as_slice(), contents].concat()
}

/// P-256's order minus a positive number of at most 33 bytes with its sign.
fn order_minus(number: &[u8]) -> [u8; 32] {
    // FIPS 186-4, D.1.2.3.
    const ORDER: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc,
        0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];
    let mut subtrahend = [0; 32];
    let digits = number.strip_prefix(&[0]).unwrap_or(number);
    subtrahend[32 - digits.len()..].copy_from_slice(digits);
    let (mut difference, mut borrow) = ([0; 32], 0);
    for at in (0..32).rev() {
        let value = i16::from(ORDER[at]) - i16::from(subtrahend[at]) - borrow;
        borrow = i16::from(value < 0);
        difference[at] = value.rem_euclid(256) as u8;
    }
    difference
}

/// The contents of a DER INTEGER that is not negative.
fn unsigned(number: &[u8]) -> Vec<u8> {
    let digits = &number[number.iter().take_while(|byte| **byte == 0).count()..];
    let sign: &[u8] = if digits.first().is_none_or(|byte| *byte >= 0x80) { &[0] } else { &[] };
    [sign, digits].concat()
}
