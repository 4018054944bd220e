"""The sentence for each way in which a Redis fails: what happened, and what to do."""

import re
import socket

from pushrelay.errors import StoreError

ACL = "ACL SETUSER relay on '>PASSWORD' resetkeys '~{prefix}:*' resetchannels '&{prefix}:*' +@all -@dangerous +info"

# By the first word of an error reply: the end of a sentence that begins with the Redis's address.
_REPLIES = {
    "NOAUTH": "asks for a password: write it into the setting broker, as redis://:PASSWORD@HOST or "
    "redis://USER:PASSWORD@HOST",
    "WRONGPASS": "does not accept the user or the password of the setting broker: correct them there, or in Redis "
    "(requirepass, ACL LIST)",
    "LOADING": "is starting and still reads its data: the relay tries again, or start it when Redis is ready",
    "READONLY": "is a replica and takes no writes: set broker to the address of the master, or to the Sentinels "
    "(redis+sentinel://…)",
    "MASTERDOWN": "is a replica that has lost its master: set broker to the address of the master, or to the Sentinels "
    "(redis+sentinel://…)",
    "MISCONF": "takes no writes because it cannot save to its disk: its log has the reason, usually a full disk",
    "OOM": "is full: raise maxmemory in redis.conf, or lower history_size or history_ttl",
    "NOREPLICAS": "takes no writes because it has too few replicas (min-replicas-to-write): start them again",
    "CLUSTERDOWN": "belongs to a Redis Cluster, which the relay does not support: use a standalone Redis or Sentinels",
    "MOVED": "belongs to a Redis Cluster, which the relay does not support: use a standalone Redis or Sentinels",
    "CROSSSLOT": "belongs to a Redis Cluster, which the relay does not support: use a standalone Redis or Sentinels",
    "BUSY": "is busy with a script of another program: stop that with SCRIPT KILL",
    "DENIED": "is in protected mode, which lets in only programs on its own machine: set a password (requirepass) "
    "and an address (bind) in redis.conf",
}
# By a pattern in an error reply without a word of its own.
_PATTERNS = (
    ("max number of clients", "takes no more connections: raise maxclients in redis.conf, or close others"),
    ("unknown command.{0,10}HELLO", "is older than Redis 6: upgrade it, or use Valkey"),
    ("DB index is out of range", "has no database of that number: change the number after the last slash of broker"),
    ("invalid password", _REPLIES["WRONGPASS"]),
    ("without any password configured", "has no password, and broker has one: remove it there, or set requirepass"),
)

_IN_SCRIPT = re.compile(r"@user_script: \d+: -([A-Z]+) ")  # Redis 6; later ones begin with the cause
_NOT_ALLOWED = re.compile(r"^NOPERM |executing the script can't (run|access)|ACL failure in script")

_OF_SENTINELS = "add the Sentinels' password to broker: redis+sentinel://HOST/NAME?sentinel_password=PASSWORD"
_SENTINEL_REPLIES = {
    "NOAUTH": f"asks for a password: {_OF_SENTINELS}",
    "WRONGPASS": f"does not accept the password: {_OF_SENTINELS}",
}


def sentinel_error(text: str, where: str) -> StoreError:
    """Return the error for an error reply of the Sentinel at `where`."""
    if "unknown command" in text and "HELLO" not in text:
        return StoreError(f"{where} is not a Sentinel: correct the address in broker")
    end = _SENTINEL_REPLIES.get(text.partition(" ")[0])
    return StoreError(f"{where} {end}") if end else reply_error(text, where)


def word_of(text: str) -> str:
    """Return the word that names the cause of an error reply: the first one, unless a script hides it."""
    if found := _IN_SCRIPT.search(text):
        return found[1]
    return "NOPERM" if _NOT_ALLOWED.search(text) else text.partition(" ")[0]


def reply_error(text: str, where: str, prefix: str = "relay") -> StoreError:
    """Return the error for an error reply of the Redis at `where`, such as "NOAUTH Authentication required."."""
    word = word_of(text)
    if word == "NOPERM":
        what = re.sub(r"^NOPERM (this user has no|User \S+ has no|No) permissions? to ", "", text).strip()
        allow = ACL.format(prefix=prefix)
        return StoreError(f"{where} forbids its user something that the relay needs ({what}). Allow it:  {allow}")
    end = _REPLIES.get(word) or next((end for each, end in _PATTERNS if re.search(each, text, re.IGNORECASE)), "")
    return StoreError(f"{where} {end}" if end else f"{where} refused a command of the relay: {text[:200]}")


def os_error(error: OSError, where: str, is_tls: bool) -> StoreError:
    """Return the error for a connection to `where` that could not be made, or has ended."""
    if isinstance(error, socket.gaierror):
        return StoreError(
            f"{where} cannot be reached, because its host name cannot be looked up ({error.strerror}): correct it in "
            "broker, or repair this machine's DNS"
        )
    if isinstance(error, ConnectionRefusedError):
        return StoreError(f"{where} refuses connections: start Redis there, or correct the address in broker")
    if isinstance(error, TimeoutError):
        plain = "; if it does not expect TLS, write redis://" if is_tls else ""
        return StoreError(
            f"{where} does not answer: check that Redis runs there, and that no firewall is between{plain}"
        )
    if type(error).__module__ == "ssl":
        return StoreError(f"{where} cannot be reached over TLS: {_about_tls(error)}")
    if isinstance(error, FileNotFoundError):
        return StoreError(
            f"{where} cannot be reached, because its socket does not exist: start Redis, or correct the path in broker"
        )
    if isinstance(error, PermissionError):
        return StoreError(
            f"{where} may not be opened by the relay's user: add that user to the group redis, or set "
            "unixsocketperm in redis.conf"
        )
    if isinstance(error, ConnectionError):
        advice = "its log has the reason" if is_tls else "its log has the reason; if it expects TLS, write rediss://"
        return StoreError(f"{where} closed the connection: {advice}")
    return StoreError(f"{where} cannot be reached: {error.strerror or error}; check the network and the address")


def _about_tls(error: OSError) -> str:
    reason = getattr(error, "verify_message", "") or getattr(error, "reason", "") or str(error)
    if "match" in reason:
        return f"{reason}: use the name that its certificate has"
    if getattr(error, "verify_message", ""):
        return f"its certificate is not trusted ({reason}): name your CA's file in broker with ?ca=FILE"
    if reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
        return "it does not speak TLS: write redis://, or turn TLS on (tls-port in redis.conf)"
    if "NO_CERTIFICATE" in reason or reason in ("PEM_LIB", "NO_START_LINE", "KEY_VALUES_MISMATCH"):
        return "the files of ca=, cert= and key= in broker must contain certificates, and the key of cert=, in PEM form"
    if "CERTIFICATE_REQUIRED" in reason or "HANDSHAKE_FAILURE" in reason or "EOF" in reason:
        return (
            "it ends the connection, probably because it demands a certificate of the relay: add cert=FILE&key=FILE to "
            "broker, or set tls-auth-clients no in redis.conf"
        )
    return f"{reason}: check tls-port and the certificates on both sides"


def not_a_redis(where: str) -> StoreError:
    """Return the error for a server that speaks another protocol."""
    return StoreError(f"{where} is not a Redis: correct the address in broker")
