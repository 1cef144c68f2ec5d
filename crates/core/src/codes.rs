//! How a closed set of codes is declared: the enum, the list of all of them, and how each is written.

/// Declares an enum of codes with `ALL` and `as_str`. Each code is written as it is named.
#[macro_export]
macro_rules! codes {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$doc:meta])+ $code:ident,)+ }) => {
        $(#[$meta])*
        pub enum $name {
            $($(#[$doc])+ $code,)+
        }

        impl $name {
            /// All of them, in the order of the docs.
            pub const ALL: [Self; [$(stringify!($code)),+].len()] = [$(Self::$code,)+];

            /// The code as it is written.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$code => stringify!($code),)+
                }
            }
        }
    };
}
