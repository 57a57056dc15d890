//! The table of functions. A line is a name, what it takes and what it gives.

pub(super) const TABLE: &str = "
_==_ (A, A) -> bool
_!=_ (A, A) -> bool
!_ (bool) -> bool
-_ (int) -> int
-_ (double) -> double
_+_ (int, int) -> int
_+_ (uint, uint) -> uint
_+_ (double, double) -> double
_+_ (string, string) -> string
_+_ (bytes, bytes) -> bytes
_+_ (list(A), list(A)) -> list(A)
_+_ (duration, duration) -> duration
_+_ (timestamp, duration) -> timestamp
_+_ (duration, timestamp) -> timestamp
_-_ (int, int) -> int
_-_ (uint, uint) -> uint
_-_ (double, double) -> double
_-_ (duration, duration) -> duration
_-_ (timestamp, duration) -> timestamp
_-_ (timestamp, timestamp) -> duration
_*_ (int, int) -> int
_*_ (uint, uint) -> uint
_*_ (double, double) -> double
_/_ (int, int) -> int
_/_ (uint, uint) -> uint
_/_ (double, double) -> double
_%_ (int, int) -> int
_%_ (uint, uint) -> uint
@in (A, list(A)) -> bool
@in (A, map(A, B)) -> bool
type (A) -> type
dyn (A) -> dyn
size (string) -> int
size (bytes) -> int
size (list(A)) -> int
size (map(A, B)) -> int
size string.() -> int
size bytes.() -> int
size list(A).() -> int
size map(A, B).() -> int
int (int) -> int
int (uint) -> int
int (double) -> int
int (string) -> int
int (timestamp) -> int
int (duration) -> int
uint (uint) -> uint
uint (int) -> uint
uint (double) -> uint
uint (string) -> uint
double (double) -> double
double (int) -> double
double (uint) -> double
double (string) -> double
bool (bool) -> bool
bool (string) -> bool
string (string) -> string
string (bool) -> string
string (int) -> string
string (uint) -> string
string (double) -> string
string (bytes) -> string
string (timestamp) -> string
string (duration) -> string
string (IP) -> string
string (CIDR) -> string
bytes (bytes) -> bytes
bytes (string) -> bytes
duration (duration) -> duration
duration (string) -> duration
duration (int) -> duration
timestamp (timestamp) -> timestamp
timestamp (string) -> timestamp
timestamp (int) -> timestamp
getFullYear timestamp.() -> int
getFullYear timestamp.(string) -> int
getMonth timestamp.() -> int
getMonth timestamp.(string) -> int
getDayOfYear timestamp.() -> int
getDayOfYear timestamp.(string) -> int
getDayOfMonth timestamp.() -> int
getDayOfMonth timestamp.(string) -> int
getDate timestamp.() -> int
getDate timestamp.(string) -> int
getDayOfWeek timestamp.() -> int
getDayOfWeek timestamp.(string) -> int
getHours timestamp.() -> int
getHours timestamp.(string) -> int
getHours duration.() -> int
getMinutes timestamp.() -> int
getMinutes timestamp.(string) -> int
getMinutes duration.() -> int
getSeconds timestamp.() -> int
getSeconds timestamp.(string) -> int
getSeconds duration.() -> int
getMilliseconds timestamp.() -> int
getMilliseconds timestamp.(string) -> int
getMilliseconds duration.() -> int
contains string.(string) -> bool
startsWith string.(string) -> bool
endsWith string.(string) -> bool
matches string.(string) -> bool
matches (string, string) -> bool
charAt string.(int) -> string
indexOf string.(string) -> int
indexOf string.(string, int) -> int
lastIndexOf string.(string) -> int
lastIndexOf string.(string, int) -> int
lowerAscii string.() -> string
upperAscii string.() -> string
replace string.(string, string) -> string
replace string.(string, string, int) -> string
split string.(string) -> list(string)
split string.(string, int) -> list(string)
substring string.(int) -> string
substring string.(int, int) -> string
trim string.() -> string
join list(string).() -> string
join list(string).(string) -> string
format string.(list(dyn)) -> string
strings.quote (string) -> string
find string.(string) -> string
findAll string.(string) -> list(string)
findAll string.(string, int) -> list(string)
isSorted list(A).() -> bool
sum list(A).() -> A
max list(A).() -> A
min list(A).() -> A
indexOf list(A).(A) -> int
lastIndexOf list(A).(A) -> int
slice list(A).(int, int) -> list(A)
flatten list(A).() -> list(dyn)
flatten list(A).(int) -> list(dyn)
sort list(A).() -> list(A)
distinct list(A).() -> list(A)
reverse list(A).() -> list(A)
first list(A).() -> optional(A)
last list(A).() -> optional(A)
lists.range (int) -> list(int)
sets.contains (list(A), list(A)) -> bool
sets.intersects (list(A), list(A)) -> bool
sets.equivalent (list(A), list(A)) -> bool
url (string) -> URL
isURL (string) -> bool
getScheme URL.() -> string
getHost URL.() -> string
getHostname URL.() -> string
getPort URL.() -> string
getEscapedPath URL.() -> string
getQuery URL.() -> map(string, list(string))
quantity (string) -> Quantity
isQuantity (string) -> bool
sign Quantity.() -> int
isInteger Quantity.() -> bool
asInteger Quantity.() -> int
asApproximateFloat Quantity.() -> double
isGreaterThan Quantity.(Quantity) -> bool
isLessThan Quantity.(Quantity) -> bool
compareTo Quantity.(Quantity) -> int
add Quantity.(Quantity) -> Quantity
add Quantity.(int) -> Quantity
sub Quantity.(Quantity) -> Quantity
sub Quantity.(int) -> Quantity
ip (string) -> IP
ip CIDR.() -> IP
isIP (string) -> bool
ip.isCanonical (string) -> bool
family IP.() -> int
isUnspecified IP.() -> bool
isLoopback IP.() -> bool
isLinkLocalMulticast IP.() -> bool
isLinkLocalUnicast IP.() -> bool
isGlobalUnicast IP.() -> bool
cidr (string) -> CIDR
isCIDR (string) -> bool
containsIP CIDR.(string) -> bool
containsIP CIDR.(IP) -> bool
containsCIDR CIDR.(string) -> bool
containsCIDR CIDR.(CIDR) -> bool
prefixLength CIDR.() -> int
masked CIDR.() -> CIDR
semver (string) -> Semver
semver (string, bool) -> Semver
isSemver (string) -> bool
isSemver (string, bool) -> bool
major Semver.() -> int
minor Semver.() -> int
patch Semver.() -> int
isGreaterThan Semver.(Semver) -> bool
isLessThan Semver.(Semver) -> bool
compareTo Semver.(Semver) -> int
format.named (string) -> optional(NamedFormat)
format.dns1123Label () -> NamedFormat
format.dns1123Subdomain () -> NamedFormat
format.dns1035Label () -> NamedFormat
format.qualifiedName () -> NamedFormat
format.dns1123LabelPrefix () -> NamedFormat
format.dns1123SubdomainPrefix () -> NamedFormat
format.dns1035LabelPrefix () -> NamedFormat
format.labelValue () -> NamedFormat
format.uri () -> NamedFormat
format.uuid () -> NamedFormat
format.byte () -> NamedFormat
format.date () -> NamedFormat
format.datetime () -> NamedFormat
validate NamedFormat.(string) -> optional(list(string))
optional.of (A) -> optional(A)
optional.ofNonZeroValue (A) -> optional(A)
optional.none () -> optional(dyn)
hasValue optional(A).() -> bool
value optional(A).() -> A
or optional(A).(optional(A)) -> optional(A)
orValue optional(A).(A) -> A
jsonpatch.escapeKey (string) -> string
path Authorizer.(string) -> PathCheck
group Authorizer.(string) -> GroupCheck
serviceAccount Authorizer.(string, string) -> Authorizer
resource GroupCheck.(string) -> ResourceCheck
subresource ResourceCheck.(string) -> ResourceCheck
namespace ResourceCheck.(string) -> ResourceCheck
name ResourceCheck.(string) -> ResourceCheck
fieldSelector ResourceCheck.(string) -> ResourceCheck
labelSelector ResourceCheck.(string) -> ResourceCheck
check PathCheck.(string) -> Decision
check ResourceCheck.(string) -> Decision
allowed Decision.() -> bool
reason Decision.() -> string
errored Decision.() -> bool
error Decision.() -> string
_<_ (bool, bool) -> bool
_<_ (int, int) -> bool
_<_ (uint, uint) -> bool
_<_ (double, double) -> bool
_<_ (int, double) -> bool
_<_ (int, uint) -> bool
_<_ (uint, int) -> bool
_<_ (uint, double) -> bool
_<_ (double, int) -> bool
_<_ (double, uint) -> bool
_<_ (string, string) -> bool
_<_ (bytes, bytes) -> bool
_<_ (timestamp, timestamp) -> bool
_<_ (duration, duration) -> bool
";
