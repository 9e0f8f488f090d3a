//! Keeps secrets out of messages. This program puts no data source into its own messages. Redaction is the second line
//! of defence, for messages of databases.

use percent_encoding::percent_decode_str;

const MASK: &str = "***";
/// Minimum length of a password to mask: masking every `a` would make a message unreadable and reveal the password.
const MIN_SECRET: usize = 4;

/// Masks a data source and its password in texts.
#[derive(Debug, Default, Clone)]
pub struct Redactor {
    secrets: Vec<String>,
}

impl Redactor {
    /// For the text of a data source.
    pub fn new(data_source: &str) -> Self {
        let mut secrets = vec![data_source.to_owned()];
        let rest = data_source.split_once("://").map_or("", |(_, rest)| rest);
        // A user, a password, the name of a database and an option may all contain an unescaped `@`, and all but the
        // option a `/` or `?`. So every `@` may be the one after the password.
        let ends = rest.match_indices('@').map(|(at, _)| &rest[..at]);
        let logins = ends.filter_map(|login| login.split_once(':'));
        let options = rest.split(['?', '&']).filter_map(|option| option.split_once('='));
        let options = options.filter(|(name, _)| percent_decode_str(name).eq(*b"password")).map(|it| it.1);
        let passwords = logins.map(|(_, password)| password).chain(options);
        for password in passwords {
            secrets.push(password.to_owned());
            secrets.push(percent_decode_str(password).decode_utf8_lossy().into_owned());
        }
        secrets.retain(|secret| secret.len() >= MIN_SECRET);
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Self { secrets }
    }

    /// The text with every secret masked.
    pub fn redact(&self, text: &str) -> String {
        self.secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), MASK))
    }
}

#[cfg(test)]
mod tests {
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    use proptest::prelude::*;

    use super::*;

    /// All forms of a data source with this login.
    fn sources(user: &str, password: &str, rest: &str) -> Vec<String> {
        let escaped = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let (user_escaped, password_escaped) = (escaped(user), escaped(password));
        let mysql = ["tcp(db:3306)", "db:3306", "unix(/run/my@sql.sock)"]
            .map(|place| format!("mysql://{user}:{password}@{place}/shop{rest}"));
        let postgresql = ["postgresql", "postgres"].map(|scheme| {
            let login = format!("{scheme}://{user_escaped}:{password_escaped}@db:5432/shop");
            let option = format!("{scheme}://db/shop?user={user_escaped}&pass%77ord={password_escaped}");
            [format!("{login}{rest}"), format!("{login}?application_name=x"), option]
        });
        mysql.into_iter().chain(postgresql.into_iter().flatten()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]
        #[test]
        fn password_of_every_form_is_masked(
            // The first colon ends a user's name.
            user in "[a-z@/?&=%+. -]{0,8}",
            password in "[a-zA-Z0-9@/:?&=%+#. äß-]{4,12}",
            rest in "|\\?application_name=a@b:c|@b\\?x=y@z",
        ) {
            for source in sources(&user, &password, &rest) {
                let said = Redactor::new(&source).redact(&format!("Access denied for '{password}'"));
                prop_assert_eq!(said.as_str(), "Access denied for '***'", "{}", source);
            }
        }
    }

    #[test]
    fn data_source_and_password_are_masked() {
        let redactor = Redactor::new("mysql://ana:p@ss%2Fword@tcp(db:3306)/shop");
        assert_eq!(redactor.redact("bad p@ss%2Fword or p@ss/word at db"), "bad *** or *** at db");
        assert_eq!(redactor.redact("mysql://ana:p@ss%2Fword@tcp(db:3306)/shop"), "***");
        let redactor = Redactor::new("postgresql://h/d?user=u&password=secret");
        assert_eq!(redactor.redact("secret and u"), "*** and u");
        let redactor = Redactor::new("postgresql://u:secret@h/d?application_name=a@b");
        assert_eq!(redactor.redact("bad secret"), "bad ***");
        assert_eq!(Redactor::new("mysql://a:se?cret@h/d").redact("se?cret"), "***");
        for source in [
            "mysql://ana@corp:secret@tcp(db:3306)/shop",
            "mysql://corp/ana:secret@tcp(db:3306)/shop",
            "mysql://corp/ana@x:secret@tcp(db:3306)/shop@b?a=b@c",
            "postgresql://ana@corp:secret@h/d@e",
            "postgresql://corp/ana%40x:secret@h:5432/d?application_name=a@b:c",
        ] {
            assert_eq!(Redactor::new(source).redact("denied: secret"), "denied: ***", "{source}");
        }
        assert_eq!(Redactor::new("mysql://a:abc@h/d").redact("abc"), "abc");
    }
}
