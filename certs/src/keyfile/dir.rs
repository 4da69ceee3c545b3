//! The private keys of a node or of a CA: a directory, and the passphrase that
//! its new files are encrypted with.
//!
//! Used by [`crate::authority`], [`crate::credentials`] and the daemon.
//! Invariants: a key that is in use is replaced by renaming a file that is
//! already durable over it, so at every moment there is a whole one; what was
//! never in use is never written over, but by [`KeyDir::replace_next`].
//!
//! Not here: when a key is replaced ([`crate::rotate`]), and how encryption
//! works ([`super::sealed`]).

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use protocol::{hex, sign::SigningKey, suite::Suite};
use zeroize::Zeroizing;

use super::{
    create_private_dir, read_private, remove_durably, replace_private,
    sealed::{self, Unsealable},
    sync_directory, write_private,
};
use crate::{CertError, fault};

/// A node's TLS key, in its `keys/`.
pub const NODE_KEY_FILE: &str = "node.key";
/// A node's key for change sets, in its `keys/`.
pub const SIGNING_KEY_FILE: &str = "signing.key";

/// What is added to the name of a key that shall follow the current one.
const NEXT: &str = ".next";
/// As much as OpenSSL reads, in bytes.
const PASSPHRASE_BYTES_MAX: usize = 1024;

/// What private keys are encrypted with at rest. It is wiped when dropped.
pub struct Passphrase(Zeroizing<String>);

impl Passphrase {
    /// Reads the first line of a private file, without its line ending.
    ///
    /// Refused: a file that others can read, an empty line, more than 1024
    /// bytes, and what is not UTF-8.
    pub fn read(path: &Path) -> Result<Self, CertError> {
        let bytes = read_private(path)?;
        let line = bytes.split(|&byte| byte == b'\n').next().unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let text = std::str::from_utf8(line).map_err(|_| {
            CertError::content(path, "its first line is not UTF-8, so it is no passphrase")
        })?;
        Self::new(Zeroizing::new(text.to_owned())).ok_or_else(|| {
            CertError::content(
                path,
                format!(
                    "its first line has to be the passphrase, of 1 to {PASSPHRASE_BYTES_MAX} bytes"
                ),
            )
        })
    }

    /// What a person has typed; none if it is empty, or longer than 1024 bytes.
    pub fn new(text: Zeroizing<String>) -> Option<Self> {
        (1..=PASSPHRASE_BYTES_MAX).contains(&text.len()).then_some(Self(text))
    }

    /// Its text, to be handed to the process that uses it and to nobody else.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Encrypts a few bytes as key files are encrypted; answers PEM.
    pub fn seal(&self, bytes: &[u8]) -> Result<Zeroizing<String>, CertError> {
        sealed::seal(bytes, &self.0).map_err(CertError::crypto("encrypt keys"))
    }

    /// Decrypts what [`Passphrase::seal`] made. One wrong passphrase in 256 gives bytes of
    /// no meaning: who seals has to put something in by which they are known.
    pub fn open(&self, pem: &str) -> Result<Zeroizing<Vec<u8>>, Unsealable> {
        sealed::open(pem, &self.0)
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase")
    }
}

/// A private key that has a file of its own.
pub trait StoredKey: Sized {
    /// What it is called in messages.
    const WHAT: &'static str;
    /// The PKCS#8 form in DER, which is what gets encrypted.
    fn to_pkcs8(&self) -> Zeroizing<Vec<u8>>;
    /// Reads [`StoredKey::to_pkcs8`] back; says what is wrong.
    fn from_pkcs8(der: &[u8]) -> Result<Self, String>;
    /// What an unencrypted file holds.
    fn to_text(&self) -> Zeroizing<String>;
    /// Reads [`StoredKey::to_text`] back; says what is wrong.
    fn from_text(text: &str) -> Result<Self, String>;
}

/// A directory of private keys.
#[derive(Clone)]
pub struct KeyDir {
    path: PathBuf,
    passphrase: Option<Arc<Passphrase>>,
}

impl KeyDir {
    /// The directory `path`; new keys are encrypted if there is a passphrase.
    pub fn new(path: impl Into<PathBuf>, passphrase: Option<Passphrase>) -> Self {
        Self { path: path.into(), passphrase: passphrase.map(Arc::new) }
    }

    /// Another directory with the same passphrase.
    pub fn beside(&self, path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), passphrase: self.passphrase.clone() }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Whether there is a file of that name, whatever it holds.
    pub fn exists(&self, name: &str) -> bool {
        self.file(name).symlink_metadata().is_ok()
    }

    /// Makes the directory, for its owner only, with its parents.
    pub fn create(&self) -> Result<(), CertError> {
        create_private_dir(&self.path)
    }

    /// Writes a key into a new file; [`CertError::Exists`] if there is one.
    /// It is durable when this returns.
    pub fn save<K: StoredKey>(&self, name: &str, key: &K) -> Result<(), CertError> {
        write_private(&self.file(name), self.text(key)?.as_bytes())
    }

    fn text<K: StoredKey>(&self, key: &K) -> Result<Zeroizing<String>, CertError> {
        match &self.passphrase {
            None => Ok(key.to_text()),
            Some(passphrase) => sealed::seal(&key.to_pkcs8(), &passphrase.0)
                .map_err(CertError::crypto("encrypt a private key")),
        }
    }

    /// Reads a key, encrypted or not.
    pub fn load<K: StoredKey>(&self, name: &str) -> Result<K, CertError> {
        let path = self.file(name);
        let bytes = read_private(&path)?;
        let wrong = |problem: &str| {
            CertError::content(
                &path,
                format!("not {}: {problem}; restore the file from a backup", K::WHAT),
            )
        };
        let text = std::str::from_utf8(&bytes).map_err(|_| wrong("it is not a text"))?;
        if !text.contains(sealed::LABEL) {
            return K::from_text(text).map_err(|problem| wrong(&problem));
        }
        let passphrase =
            self.passphrase.as_ref().ok_or_else(|| CertError::PassphraseMissing(path.clone()))?;
        let der = sealed::open(text, &passphrase.0).map_err(|problem| match problem {
            Unsealable::WrongPassphrase => CertError::PassphraseWrong(path.clone()),
            Unsealable::Damaged => wrong("its PEM is damaged"),
            Unsealable::Parameters => wrong(
                "it is encrypted in a way that is not supported, or with a cost beyond reason; \
                 scrypt or PBKDF2 with AES is expected",
            ),
        })?;
        // One wrong passphrase in 256 leaves padding that looks right.
        K::from_pkcs8(&der).map_err(|_| CertError::PassphraseWrong(path))
    }

    /// Writes the key that shall follow the one in `name`, beside it; durable
    /// when this returns.
    ///
    /// [`CertError::Exists`] if one is waiting: somebody may have been told its
    /// public half already, so use it ([`KeyDir::load_next`]).
    pub fn save_next<K: StoredKey>(&self, name: &str, key: &K) -> Result<(), CertError> {
        self.save(&next(name), key)?;
        fault::point("key.next-written");
        Ok(())
    }

    /// As [`KeyDir::save_next`], in the place of the one that waits, which is lost: for
    /// whoever knows that it will never count.
    pub fn replace_next<K: StoredKey>(&self, name: &str, key: &K) -> Result<(), CertError> {
        replace_private(&self.file(&next(name)), self.text(key)?.as_bytes())?;
        fault::point("key.next-written");
        Ok(())
    }

    /// The key that waits to follow the one in `name`, if there is one.
    pub fn load_next<K: StoredKey>(&self, name: &str) -> Result<Option<K>, CertError> {
        if self.exists(&next(name)) { self.load(&next(name)).map(Some) } else { Ok(None) }
    }

    /// Makes the waiting key the one in `name`, in one step, durably; the key
    /// that it follows is gone. False if none was waiting, as after a crash
    /// between the step and the caller's next one.
    pub fn promote_next(&self, name: &str) -> Result<bool, CertError> {
        let waiting = self.file(&next(name));
        match fs::rename(&waiting, self.file(name)) {
            // Or somebody else has just done it, perhaps not durably yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                sync_directory(&waiting)?;
                return Ok(false);
            }
            renamed => renamed.map_err(CertError::file("rename", &waiting))?,
        }
        sync_directory(&waiting)?;
        fault::point("key.next-promoted");
        Ok(true)
    }

    /// Deletes a key, durably; false if there was none. The blocks of a disk may
    /// keep what was in them: where that matters, encrypt keys or destroy disks.
    pub(crate) fn delete(&self, name: &str) -> Result<bool, CertError> {
        remove_durably(&self.file(name))
    }
}

impl fmt::Debug for KeyDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyDir({})", self.path.display())
    }
}

fn next(name: &str) -> String {
    format!("{name}{NEXT}")
}

/// What the line of a signing key begins with; the suite's number and a space
/// follow.
const SIGNING_KEY_PREFIX: &str = "creditsync-signing-key-";

impl StoredKey for SigningKey {
    const WHAT: &'static str = "a signing key";

    fn to_pkcs8(&self) -> Zeroizing<Vec<u8>> {
        // Of the final size, so that growing leaves no copy behind.
        let (prefix, secret) = (self.suite().pkcs8_prefix(), self.secret());
        let mut der = Zeroizing::new(Vec::with_capacity(prefix.len() + secret.len()));
        der.extend_from_slice(prefix);
        der.extend_from_slice(&secret);
        der
    }

    fn from_pkcs8(der: &[u8]) -> Result<Self, String> {
        let mut suites = Suite::ALL.iter();
        suites
            .find_map(|suite| suite.signing_key(der.strip_prefix(suite.pkcs8_prefix())?).ok())
            .ok_or_else(|| "a signing key in PKCS#8 (RFC 5958) is expected".to_owned())
    }

    /// One line: what it is and of which suite, and its secret bytes as hexadecimal
    /// digits.
    fn to_text(&self) -> Zeroizing<String> {
        let secret = self.secret();
        // Enough for the whole line, so that growing leaves no copy behind.
        let bytes = SIGNING_KEY_PREFIX.len() + 8 + 2 * secret.len();
        let mut text = Zeroizing::new(String::with_capacity(bytes));
        text.push_str(SIGNING_KEY_PREFIX);
        text.push_str(&self.suite().to_string());
        text.push(' ');
        hex::push(&mut text, &secret);
        text.push('\n');
        text
    }

    fn from_text(text: &str) -> Result<Self, String> {
        let wrong = |digits: usize| {
            format!(
                "one line, '{SIGNING_KEY_PREFIX}1 ' and {digits} hexadecimal digits, is expected"
            )
        };
        let expected = || wrong(2 * Suite::One.secret_key_bytes());
        let rest = text.trim_end().strip_prefix(SIGNING_KEY_PREFIX).ok_or_else(expected)?;
        let (number, digits) = rest.split_once(' ').ok_or_else(expected)?;
        let suite = Suite::from_number(number.parse().map_err(|_| expected())?)
            .map_err(|unknown| unknown.to_string())?;
        let mut secret = Zeroizing::new(vec![0; suite.secret_key_bytes()]);
        if !hex::decode_into(digits, &mut secret) {
            return Err(wrong(2 * suite.secret_key_bytes()));
        }
        suite.signing_key(&secret).map_err(|error| error.to_string())
    }
}

/// Draws a new signing key for change sets from the system's random source.
pub fn generate_signing_key(suite: Suite) -> SigningKey {
    let mut secret = Zeroizing::new(vec![0; suite.secret_key_bytes()]);
    // The one thing that a daemon cannot do without: the kernel's source fails
    // only where the call itself does not exist.
    getrandom::fill(&mut secret).expect("every supported kernel has a random source");
    suite.signing_key(&secret).expect("any bytes of this length are a key")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::authority::NodeKey;

    fn keys(passphrase: Option<&str>) -> (tempfile::TempDir, KeyDir) {
        let directory = tempfile::tempdir().unwrap();
        let passphrase = passphrase.map(|text| phrase(directory.path(), text).unwrap());
        let keys = KeyDir::new(directory.path().join("keys"), passphrase);
        keys.create().unwrap();
        (directory, keys)
    }

    fn phrase(directory: &Path, text: &str) -> Result<Passphrase, CertError> {
        let path = directory.join("passphrase");
        let _ = fs::remove_file(&path);
        write_private(&path, text.as_bytes()).unwrap();
        Passphrase::read(&path)
    }

    fn text(keys: &KeyDir, name: &str) -> String {
        fs::read_to_string(keys.file(name)).unwrap()
    }

    #[test]
    fn keys_read_back_with_and_without_a_passphrase() {
        let of_both = |passphrase| Suite::ALL.iter().map(move |suite| (*suite, passphrase));
        for (suite, passphrase) in of_both(None).chain(of_both(Some("correct horse\n"))) {
            let (_directory, keys) = keys(passphrase);
            let node = NodeKey::generate().unwrap();
            let signing = generate_signing_key(suite);
            keys.save(NODE_KEY_FILE, &node).unwrap();
            keys.save(SIGNING_KEY_FILE, &signing).unwrap();
            for name in [NODE_KEY_FILE, SIGNING_KEY_FILE] {
                let mode = fs::metadata(keys.file(name)).unwrap().permissions().mode();
                assert_eq!(mode & 0o7777, 0o600, "{name}");
                assert!(keys.exists(name) && !keys.exists("other"));
                let encrypted = text(&keys, name).contains("BEGIN ENCRYPTED PRIVATE KEY");
                assert_eq!(encrypted, passphrase.is_some(), "{name}");
            }
            let read: NodeKey = keys.load(NODE_KEY_FILE).unwrap();
            assert_eq!(read.private_key(), node.private_key());
            let read: SigningKey = keys.load(SIGNING_KEY_FILE).unwrap();
            assert_eq!(read.public(), signing.public());
            let again = keys.save(SIGNING_KEY_FILE, &signing);
            assert!(matches!(again, Err(CertError::Exists(_))));
            // One kind is not the other.
            keys.load::<NodeKey>(SIGNING_KEY_FILE).unwrap_err();
            keys.load::<SigningKey>(NODE_KEY_FILE).unwrap_err();
        }
        assert_ne!(
            generate_signing_key(Suite::One).public(),
            generate_signing_key(Suite::One).public()
        );
    }

    #[test]
    fn plain_files_are_as_before_and_stay_readable_under_a_passphrase() {
        let (directory, plain) = keys(None);
        let signing = Suite::One.signing_key(&[0xab; 32]).unwrap();
        plain.save(SIGNING_KEY_FILE, &signing).unwrap();
        let expected = format!("creditsync-signing-key-1 {}\n", "ab".repeat(32));
        assert_eq!(text(&plain, SIGNING_KEY_FILE), expected);
        let node = NodeKey::generate().unwrap();
        plain.save(NODE_KEY_FILE, &node).unwrap();
        assert!(text(&plain, NODE_KEY_FILE).starts_with("-----BEGIN PRIVATE KEY-----\n"));

        let later = KeyDir::new(plain.path(), Some(phrase(directory.path(), "x").unwrap()));
        let read: NodeKey = later.load(NODE_KEY_FILE).unwrap();
        assert_eq!(read.private_key(), node.private_key());
        assert_eq!(later.load::<SigningKey>(SIGNING_KEY_FILE).unwrap().public(), signing.public());
    }

    #[test]
    fn an_encrypted_key_says_how_to_give_its_passphrase() {
        let (directory, keys) = keys(Some("correct horse"));
        keys.save(SIGNING_KEY_FILE, &generate_signing_key(Suite::One)).unwrap();
        keys.save(NODE_KEY_FILE, &NodeKey::generate().unwrap()).unwrap();
        let none = KeyDir::new(keys.path(), None);
        let other = KeyDir::new(keys.path(), Some(phrase(directory.path(), "other").unwrap()));
        for error in [
            none.load::<SigningKey>(SIGNING_KEY_FILE).unwrap_err(),
            other.load::<SigningKey>(SIGNING_KEY_FILE).unwrap_err(),
            none.load::<NodeKey>(NODE_KEY_FILE).unwrap_err(),
            other.load::<NodeKey>(NODE_KEY_FILE).unwrap_err(),
        ] {
            let message = error.to_string();
            assert!(message.contains(crate::error::PASSPHRASE_VARIABLE), "{message}");
            assert!(message.contains(keys.path().to_str().unwrap()), "{message}");
        }
        let shown = format!("{:?} {keys:?}", phrase(directory.path(), "correct horse").unwrap());
        assert!(!shown.contains("horse"), "{shown}");
    }

    #[test]
    fn a_passphrase_is_the_first_line_of_a_private_file() {
        let directory = tempfile::tempdir().unwrap();
        for (content, expected) in
            [("one", "one"), ("one\n", "one"), ("one\r\ntwo\n", "one"), (" a b \n", " a b ")]
        {
            assert_eq!(phrase(directory.path(), content).unwrap().0.as_str(), expected);
        }
        for bad in ["", "\n", "\nsecond line", &"x".repeat(1025)] {
            assert!(phrase(directory.path(), bad).is_err(), "{bad}");
        }
        let path = directory.path().join("passphrase");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(Passphrase::read(&path), Err(CertError::NotPrivate { .. })));
    }

    #[test]
    fn a_following_key_waits_and_takes_over_in_one_step() {
        let (_directory, keys) = keys(None);
        let (first, second) = (generate_signing_key(Suite::One), generate_signing_key(Suite::One));
        keys.save(SIGNING_KEY_FILE, &first).unwrap();
        assert!(keys.load_next::<SigningKey>(SIGNING_KEY_FILE).unwrap().is_none());
        assert!(!keys.promote_next(SIGNING_KEY_FILE).unwrap());

        keys.save_next(SIGNING_KEY_FILE, &second).unwrap();
        let again = keys.save_next(SIGNING_KEY_FILE, &generate_signing_key(Suite::One));
        assert!(matches!(again, Err(CertError::Exists(_))), "one that waits is not lost");
        let waiting = keys.load_next::<SigningKey>(SIGNING_KEY_FILE).unwrap().unwrap();
        assert_eq!(waiting.public(), second.public());
        assert_eq!(keys.load::<SigningKey>(SIGNING_KEY_FILE).unwrap().public(), first.public());

        // Unless it is known to be of no use.
        let third = generate_signing_key(Suite::One);
        keys.replace_next(SIGNING_KEY_FILE, &third).unwrap();
        assert!(keys.promote_next(SIGNING_KEY_FILE).unwrap());
        assert_eq!(keys.load::<SigningKey>(SIGNING_KEY_FILE).unwrap().public(), third.public());
        assert!(!keys.exists("signing.key.next"));
    }

    #[test]
    fn a_damaged_signing_key_is_refused() {
        let (_directory, keys) = keys(None);
        keys.save(SIGNING_KEY_FILE, &generate_signing_key(Suite::One)).unwrap();
        let text = text(&keys, SIGNING_KEY_FILE);
        for damaged in [
            "",
            &text[1..],
            &text[..text.len() - 2],
            &text.replace("key-1", "key-2"),
            &format!("{SIGNING_KEY_PREFIX}{}", "+f".repeat(32)),
        ] {
            fs::write(keys.file(SIGNING_KEY_FILE), damaged).unwrap();
            let message = keys.load::<SigningKey>(SIGNING_KEY_FILE).unwrap_err().to_string();
            assert!(message.contains("not a signing key"), "{message}");
        }
    }

    /// Where OpenSSL is installed, it reads what is written here, and its own
    /// files are read.
    #[test]
    fn openssl_reads_and_writes_the_same_files() {
        use std::process::Command;
        let (directory, keys) = keys(Some("correct horse"));
        let openssl = |args: &[&str]| {
            let output = Command::new("openssl").args(args).output().ok()?;
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Some(output.stdout)
        };
        keys.save("a", &NodeKey::generate().unwrap()).unwrap();
        keys.save("b", &generate_signing_key(Suite::One)).unwrap();
        for (name, label) in [("a", "prime256v1"), ("b", "ED25519")] {
            let file = keys.file(name);
            let args = ["pkey", "-noout", "-text", "-passin", "pass:correct horse", "-in"];
            let Some(shown) = openssl(&[&args[..], &[file.to_str().unwrap()]].concat()) else {
                eprintln!("openssl is not installed: nothing was compared");
                return;
            };
            let shown = String::from_utf8_lossy(&shown).into_owned();
            assert!(shown.contains(label), "{shown}");
        }
        for (name, kdf) in [("c", "-scrypt"), ("d", "-v2prf")] {
            let plain = directory.path().join(name);
            let file = keys.file(name);
            let (plain, file) = (plain.to_str().unwrap(), file.to_str().unwrap());
            openssl(&[
                "genpkey",
                "-algorithm",
                "EC",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-out",
                plain,
            ]);
            let kdf: &[&str] = if kdf == "-v2prf" { &[kdf, "hmacWithSHA256"] } else { &[kdf] };
            let args =
                ["pkcs8", "-topk8", "-passout", "pass:correct horse", "-in", plain, "-out", file];
            openssl(&[&args[..], kdf].concat());
            fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
            keys.load::<NodeKey>(name).unwrap();
        }
    }
}
