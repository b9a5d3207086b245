use std::collections::BTreeSet;

use super::users::password_line;
use super::*;
use crate::sql::Scope;

#[test]
fn users_are_read_with_all_mistakes_at_once() {
    let good = password_line("correct horse");
    let text = format!(
        "[[user]]\nname = \"a\"\npassword = \"{good}\"\nareas = [\"*\"]\n[[user]]\nname = \"b\"\npassword = \"{good}\"\nareas = [\"310104\", \"310105\"]\n"
    );
    let users = Users::parse(&text).unwrap();
    assert_eq!(users.get("a").unwrap().scope, Scope::All);
    let areas = ["310104", "310105"].map(|a| a.parse().unwrap());
    assert_eq!(users.get("b").unwrap().scope, Scope::Areas(BTreeSet::from(areas)));
    assert!(users.get("c").is_none());

    let wrong = format!(
        "[[user]]\nname = \"\"\npassword = \"{good}\"\nareas = [\"*\"]\n[[user]]\nname = \"b\"\npassword = \"secret\"\nareas = [\"*\"]\n[[user]]\nname = \"c\"\npassword = \"{good}\"\nareas = []\n"
    );
    let mistakes = Users::parse(&wrong).unwrap_err();
    for part in ["\"\"", "carebed users add", "areas is empty"] {
        assert!(mistakes.contains(part), "{part} is not told: {mistakes}");
    }
    assert!(!mistakes.contains("secret"), "a password is told: {mistakes}");
    let place = Users::parse("[[user]]\nnam = \"a\"\n").unwrap_err();
    assert!(place.contains("line 2"), "{place}");
}

#[test]
fn the_same_password_is_salted_anew() {
    assert_ne!(password_line("x"), password_line("x"));
}
