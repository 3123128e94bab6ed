"""What an operator may write into the settings, and what the gateway says where something is wrong."""

from __future__ import annotations

import pickle
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aibridge.errors import SettingsError
from aibridge.server.loading import Loading, load, load_section
from aibridge.server.settings import (
    Auth,
    Log,
    MCPServer,
    Metrics,
    Provider,
    Server,
    Settings,
    Storage,
    Tracing,
    Upstream,
)
from aibridge.server.values import Secret, seconds

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = "sk-test-0123456789abcdef"


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., Settings]:
    """Settings from the text of a file and from variables."""

    def read(toml: str = "", /, **environ: str) -> Settings:
        file = tmp_path / "aibridge.toml"
        file.write_text(toml, "utf-8")
        return load(file, environ)

    return read


@pytest.fixture
def problems(settings: Callable[..., Settings]) -> Callable[..., list[str]]:
    """What is said of settings that are wrong, one line a problem."""

    def read(toml: str = "", /, **environ: str) -> list[str]:
        with pytest.raises(SettingsError) as refused:
            settings(toml, **environ)
        assert KEY not in str(refused.value)
        return str(refused.value).splitlines()

    return read


class TestWithNothingConfigured:
    def test_every_setting_has_its_default(self) -> None:
        settings = load(None, {})

        assert (settings.server.host, settings.server.port, settings.server.workers) == ("127.0.0.1", 8080, 1)
        assert (settings.server.shutdown_grace, settings.server.max_body_size) == (30.0, 33_554_432)
        assert settings.storage.url == "sqlite:///aibridge.db"
        assert (settings.storage.journal_dir, settings.storage.required) == (Path("aibridge-journal"), True)
        assert (settings.auth.mode, settings.auth.header) == ("header", "X-User-ID")
        assert settings.metrics.namespace == "aibridge"
        assert settings.upstream.dump_dir is None
        assert (settings.upstream.connect_timeout, settings.upstream.first_byte_timeout) == (10.0, 600.0)
        assert (settings.upstream.idle_timeout, settings.upstream.keepalive_interval) == (300.0, 15.0)
        breaker = settings.breaker
        assert (breaker.enabled, breaker.failures, breaker.reset) == (True, 5, 10.0)
        assert (breaker.open, breaker.probes) == (30.0, 3)
        assert (settings.log.format, settings.log.level) == ("auto", "info")
        assert settings.mcp_servers == ()

    def test_copilot_is_there_because_its_users_bring_their_own_keys(self) -> None:
        (copilot,) = load(None, {}).providers

        assert (copilot.type, copilot.name, copilot.base_url) == ("copilot", "copilot", "https://api.githubcopilot.com")
        assert copilot.api_key is None

    def test_a_key_in_the_environment_configures_its_provider(self) -> None:
        anthropic, openai, copilot = load(None, {"ANTHROPIC_API_KEY": KEY, "OPENAI_API_KEY": f"{KEY}\n"}).providers

        assert (anthropic.name, anthropic.base_url) == ("anthropic", "https://api.anthropic.com")
        assert (openai.name, openai.base_url) == ("openai", "https://api.openai.com/v1")
        assert anthropic.api_key == openai.api_key == Secret(KEY), "a line end after the key is none of the key's"
        assert copilot.name == "copilot"

    def test_an_empty_variable_is_no_key(self) -> None:
        assert [provider.name for provider in load(None, {"OPENAI_API_KEY": ""}).providers] == ["copilot"]

    def test_a_setting_of_a_built_in_provider_is_enough_to_have_it(self) -> None:
        openai, _ = load(None, {"AIBRIDGE_PROVIDERS_OPENAI_BASE_URL": "http://127.0.0.1:11434/v1"}).providers

        assert (openai.base_url, openai.api_key) == ("http://127.0.0.1:11434/v1", None)


class TestTheFile:
    def test_says_what_it_says(self, settings: Callable[..., Settings]) -> None:
        read = settings(
            """
            [server]
            port = 9000
            shutdown_grace = "1h30m"
            max_body_size = "512KiB"

            [storage]
            url = "sqlite:////var/lib/aibridge/records.db"
            required = false

            [upstream]
            dump_dir = "dump"
            keepalive_interval = 0

            [breaker]
            failures = 10
            open = "1m"

            [[providers]]
            type = "anthropic"
            api_key_env = "TEAM_KEY"
            max_retries = 0

            [[providers]]
            type = "openai"
            name = "local-models"
            base_url = "http://127.0.0.1:11434/v1/"
            byok = false

            [[mcp_servers]]
            name = "deepwiki"
            url = "https://mcp.deepwiki.com/mcp"
            tool_allow = "^ask_question$"
            headers = { Authorization = "Bearer abc" }

            [[mcp_servers]]
            name = "files"
            command = ["npx", "-y", "files-server"]
            """,
            TEAM_KEY=KEY,
        )

        assert (read.server.port, read.server.shutdown_grace, read.server.max_body_size) == (9000, 5400.0, 524_288)
        assert (read.storage.url, read.storage.required) == ("sqlite:////var/lib/aibridge/records.db", False)
        assert (read.upstream.dump_dir, read.upstream.keepalive_interval) == (Path("dump"), 0.0)
        assert (read.breaker.failures, read.breaker.open, read.breaker.probes) == (10, 60.0, 3)
        anthropic, local = read.providers
        assert (anthropic.api_key, anthropic.api_key_env, anthropic.max_retries) == (Secret(KEY), "TEAM_KEY", 0)
        assert (local.name, local.base_url, local.byok) == ("local-models", "http://127.0.0.1:11434/v1", False)
        deepwiki, files = read.mcp_servers
        assert (deepwiki.url, deepwiki.tool_allow) == ("https://mcp.deepwiki.com/mcp", "^ask_question$")
        assert deepwiki.headers == {"Authorization": Secret("Bearer abc")}
        assert files.command == ("npx", "-y", "files-server")

    def test_may_be_named_by_a_variable(self, tmp_path: Path) -> None:
        file = tmp_path / "elsewhere.toml"
        file.write_text("[server]\nport = 9001")

        assert load(None, {"AIBRIDGE_CONFIG": str(file)}).server.port == 9001

    def test_that_is_missing_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(SettingsError, match=r"nowhere\.toml \(--config\) can not be read: No such file"):
            load(tmp_path / "nowhere.toml", {})

    def test_that_is_no_toml_is_told_by_line(self, problems: Callable[..., list[str]]) -> None:
        (problem,) = problems("[server]\nport = 80 80")

        assert "is not valid TOML" in problem
        assert "line 2" in problem

    def test_that_is_no_text_is_told(self, tmp_path: Path) -> None:
        file = tmp_path / "aibridge.toml"
        file.write_bytes(b"\xff\xfe")

        with pytest.raises(SettingsError, match="it is not UTF-8"):
            load(file, {})

    def test_for_the_reading_commands_needs_no_providers_keys(self, tmp_path: Path) -> None:
        file = tmp_path / "aibridge.toml"
        file.write_text('[storage]\nurl = "sqlite:///here.db"\n[[providers]]\ntype = "openai"\napi_key_env = "NOT_SET"')

        assert load_section(Storage, file, {}).url == "sqlite:///here.db"


class TestTheEnvironment:
    def test_wins_over_the_file(self, settings: Callable[..., Settings]) -> None:
        read = settings(
            '[server]\nport = 9000\n[storage]\nrequired = true\n[upstream]\nidle_timeout = "1m"\ndump_dir = "dump"',
            AIBRIDGE_SERVER_PORT="9001",
            AIBRIDGE_STORAGE_REQUIRED="off",
            AIBRIDGE_UPSTREAM_IDLE_TIMEOUT="90",
            AIBRIDGE_UPSTREAM_DUMP_DIR="",
        )

        assert (read.server.port, read.storage.required) == (9001, False)
        assert (read.upstream.idle_timeout, read.upstream.dump_dir) == (90.0, None)

    def test_reaches_a_provider_by_its_name(self, settings: Callable[..., Settings]) -> None:
        toml = """
        [[providers]]
        type = "openai"
        name = "team"
        [[providers]]
        type = "openai"
        name = "team-b"
        api_key_env = "NOT_SET"
        """

        team, team_b = settings(
            toml, AIBRIDGE_PROVIDERS_TEAM_BYOK="no", AIBRIDGE_PROVIDERS_TEAM_B_API_KEY=KEY
        ).providers

        assert (team.byok, team.api_key) == (False, None)
        assert (team_b.byok, team_b.api_key) == (True, Secret(KEY)), (
            "the variable stands for the file's api_key_env too"
        )

    @pytest.mark.parametrize("written", ['["npx", "a b"]', "['npx', 'a b']"], ids=["JSON", "TOML"])
    def test_holds_lists_and_tables_as_json_or_toml(self, settings: Callable[..., Settings], written: str) -> None:
        toml = '[[mcp_servers]]\nname = "files"'

        (files,) = settings(toml, AIBRIDGE_MCP_SERVERS_FILES_COMMAND=written).mcp_servers

        assert files.command == ("npx", "a b")

    def test_can_hold_a_whole_list(self, settings: Callable[..., Settings]) -> None:
        providers = settings(AIBRIDGE_PROVIDERS='[{"type": "openai", "name": "a"}, {"type": "copilot"}]').providers

        assert [provider.name for provider in providers] == ["a", "copilot"]

    def test_says_which_variable_is_wrong(self, problems: Callable[..., list[str]]) -> None:
        assert problems(AIBRIDGE_SERVER_PORT="eighty") == [
            'server.port (from AIBRIDGE_SERVER_PORT): found "eighty"; allowed is a whole number from 0 to 65535'
        ]

    def test_may_not_misspell_a_setting(self, problems: Callable[..., list[str]]) -> None:
        assert problems(AIBRIDGE_STORAGE_JOURNALDIR="x") == [
            "storage.journaldir (from AIBRIDGE_STORAGE_JOURNALDIR): no such setting; did you mean journal_dir?"
        ]

    def test_may_not_set_up_a_provider_that_nothing_configures(self, problems: Callable[..., list[str]]) -> None:
        (problem,) = problems('[[providers]]\ntype = "openai"', AIBRIDGE_PROVIDERS_OPNAI_BYOK="no")

        assert problem == (
            "providers: AIBRIDGE_PROVIDERS_OPNAI_BYOK names none that is configured; "
            "it is AIBRIDGE_PROVIDERS_<NAME>_<SETTING>, and the names are: OPENAI"
        )

    def test_of_kubernetes_is_not_taken_for_settings(self, settings: Callable[..., Settings]) -> None:
        read = settings(
            AIBRIDGE_SERVER_PORT="tcp://10.0.0.7:8080",
            AIBRIDGE_SERVER_SERVICE_HOST="10.0.0.7",
            AIBRIDGE_SERVER_SERVICE_PORT_HTTP="8080",
            AIBRIDGE_SERVER_PORT_8080_TCP_ADDR="10.0.0.7",
        )

        assert read.server.port == 8080


class TestWhatIsWrong:
    def test_is_told_all_at_once(self, problems: Callable[..., list[str]]) -> None:
        found = problems(
            """
            [server]
            prot = 8080
            workers = true
            [sorage]
            url = "x"
            [[providers]]
            type = "openai"
            base_url = "api.openai.com"
            """
        )

        assert found == [
            "sorage: no such section; did you mean storage?",
            "server.prot: no such setting; did you mean port?",
            "server.workers: found true; allowed is a whole number from 1 to 1024",
            'providers[0].base_url ("openai"): found "api.openai.com", but it does not begin with http:// or https://; '
            "allowed is an http or https URL with a host, without credentials, query or fragment",
        ]

    @pytest.mark.parametrize(
        ("toml", "said"),
        [
            ("server = 3", "server: found 3; allowed is a table, which begins with a line [server]"),
            ("[server]\nport = 70000", "server.port: found 70000; allowed is a whole number from 0 to 65535"),
            ("[server]\nport = 80.5", "server.port: found 80.5; allowed is a whole number"),
            ('[server]\nhost = ""', 'server.host: found ""; allowed is a text that is not empty'),
            ('[server]\nshutdown_grace = "30 sec"', "allowed is a duration such as"),
            ("[server]\nshutdown_grace = -1", "allowed is a duration such as"),
            ("[server]\nshutdown_grace = nan", "allowed is a duration such as"),
            ('[server]\nmax_body_size = "32 megs"', 'allowed is a size such as "32MiB"'),
            ("[upstream]\nidle_timeout = 0", "longer than 0"),
            ("[storage]\nurl = 'sqlite://x.db'", "a path follows three slashes"),
            ("[storage]\nurl = 'sqlite:///:memory:'", "it is not the plain path of a file"),
            ("[storage]\nurl = 'mysql://x'", 'found "mysql://x"; allowed is "sqlite:///records.db" for a file'),
            ("[storage]\nurl = 'postgresql://me:pw@x'", 'found "postgresql://***@x", but it names no server, or no'),
            ("[storage]\nurl = 'postgresql://me:p#w@x/db'", "it names no server, or no database"),
            ("[storage]\nurl = 'postgresql:x/db'", "two slashes follow the scheme"),
            ("[storage]\nurl = 'postgresql:///'", "it names no server, or no database"),
            ("[storage]\nrequired = 'yes'", 'storage.required: found "yes"; allowed is true or false'),
            ("[metrics]\nnamespace = '9x'", "metrics.namespace: found"),
            ("[auth]\nmode = 'ldap'", 'auth.mode: found "ldap"; allowed is "none" or "header"'),
            ("[auth]\nmode = 'jwt'", "this version does not support it yet"),
            ("[auth]\nmode = 'keys'", "this version does not support it yet"),
            ("[auth]\nheader = 'X User'", "allowed is the name of a header"),
            ("[log]\nlevel = 1979-05-27", "log.level: found a date or time; allowed is"),
            ("[recording]\nredactor = 'mask'", 'recording.redactor: found "mask"; allowed is none, secrets, or'),
            (
                "[recording]\nredactor_patterns = ['(a']",
                "missing ): (a; allowed is a list of regular expressions",
            ),
        ],
    )
    def test_is_named_with_what_was_found_and_what_is_allowed(
        self, problems: Callable[..., list[str]], toml: str, said: str
    ) -> None:
        (problem,) = problems(toml)

        assert said in problem


SETTINGS = {
    name: section.__struct_fields__
    for name, section in {
        "server": Server,
        "storage": Storage,
        "auth": Auth,
        "metrics": Metrics,
        "upstream": Upstream,
        "log": Log,
        "providers": Provider,
        "mcp_servers": MCPServer,
    }.items()
}
anything = st.recursive(
    st.text(st.characters(exclude_categories=["Cs", "Cc"]))
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.booleans(),
    lambda values: st.lists(values) | st.dictionaries(st.text("abc_", min_size=1), values),
    max_leaves=5,
)


@given(st.data())
def test_whatever_stands_in_the_file_is_taken_or_refused_with_a_message(data: st.DataObject) -> None:
    section = data.draw(st.sampled_from(sorted(SETTINGS)))
    table = data.draw(st.dictionaries(st.sampled_from([*SETTINGS[section], "other"]), anything))
    listed = section in ("providers", "routes", "mcp_servers")

    with suppress(SettingsError):
        Loading(
            {section: data.draw(st.sampled_from([table, [table], [table, table]]) if listed else anything)}, {}
        ).settings()
    with suppress(SettingsError):
        Loading({section: [table] if listed else table}, {}).settings()


@given(st.data())
def test_whatever_stands_in_the_environment_is_taken_or_refused_with_a_message(data: st.DataObject) -> None:
    section = data.draw(st.sampled_from(sorted(SETTINGS)))
    setting = data.draw(st.sampled_from([*SETTINGS[section], "other"])).upper()
    name = {"providers": "PROVIDERS_OPENAI", "mcp_servers": "MCP_SERVERS_FILES"}.get(section, section.upper())
    listed = {"AIBRIDGE_MCP_SERVERS": '[{"name": "files", "command": ["x"]}]'}

    with suppress(SettingsError):
        load(None, {**listed, f"AIBRIDGE_{name}_{setting}": data.draw(st.text() | st.from_regex(r"\A[0-9.]+[a-z]*\Z"))})


class TestRoutes:
    PROVIDERS = """
        [[providers]]
        type = "anthropic"
        [[providers]]
        type = "anthropic"
        name = "quay"
        [[providers]]
        type = "openai"
        [[providers]]
        type = "copilot"
        [[routes]]
    """

    def test_are_read(self, settings: Callable[[str], Settings]) -> None:
        [route] = settings(
            self.PROVIDERS
            + """
            name = "port"
            providers = ["anthropic", "quay"]
            allow = ["tide-*"]
            when = { quay = ["tide-1", "tide-2"] }
            aliases = { fast = "tide-1", slow = { quay = "acme/tide-9" } }
            """
        ).routes
        assert (route.name, route.providers, route.allow) == ("port", ("anthropic", "quay"), ("tide-*",))
        assert route.when == {"quay": ("tide-1", "tide-2")}
        assert route.aliases == {"fast": "tide-1", "slow": {"quay": "acme/tide-9"}}

    @pytest.mark.parametrize(
        ("toml", "said"),
        [
            ('providers = ["quay"]', "routes[0].name: it is missing"),
            ('name = "port"', 'routes[0].providers ("port"): it is missing; allowed is a list of providers\' names'),
            ('name = "quay"\nproviders = ["quay"]', '"/quay" is a route of a provider; take another name'),
            ('name = "readyz"\nproviders = ["quay"]', '"/readyz" is a route of the gateway itself'),
            ('name = "port"\nproviders = ["quey"]', '"quey" is no provider; did you mean quay?'),
            ('name = "port"\nproviders = []', "found a list; allowed is a list of providers' names"),
            ('name = "port"\nproviders = ["quay", "quay"]', "a provider is named twice"),
            ('name = "port"\nproviders = ["quay", "openai"]', "they speak different dialects"),
            ('name = "port"\nproviders = ["copilot"]', "a copilot provider has no key of its own"),
            ('name = "port"\nproviders = ["quay"]\nwhen = { openai = ["a"] }', '"openai" is none of its providers'),
            ('name = "port"\nproviders = ["quay"]\naliases = { a = { b = "c" } }', '"b" is none of its providers'),
            ('name = "port"\nproviders = ["quay"]\naliases = { a = {} }', "the name of a model is not a text"),
            ('name = "port"\nproviders = ["quay"]\nallow = "tide-*"', 'found "tide-*"; allowed is a list of names'),
        ],
    )
    def test_are_checked(self, problems: Callable[..., list[str]], toml: str, said: str) -> None:
        assert any(said in problem for problem in problems(self.PROVIDERS + toml)), problems(self.PROVIDERS + toml)


class TestProviders:
    @pytest.mark.parametrize(
        ("toml", "said"),
        [
            ("", 'providers[0].type: it is missing; allowed is "anthropic", "openai", "copilot" or "bedrock"'),
            ('type = "gemini"', 'providers[0].type ("gemini"): found "gemini"; allowed is "anthropic", "openai"'),
            ("type = 3", "found 3"),
            ('type = "openai"\nname = "Open AI"', "allowed is lower-case letters and digits"),
            ('type = "openai"\nname = ["x"]', "found a list"),
            ('type = "openai"\nname = "metrics"', '"/metrics" is a route of the gateway itself'),
            ('type = "openai"\nbase_url = "ftp://x"', "it does not begin with http:// or https://"),
            ('type = "openai"\nbase_url = "https://"', "it has no host"),
            ('type = "openai"\nbase_url = "https://x:port/"', "its host or port is malformed"),
            ('type = "openai"\nbase_url = "https://x/?a=b"', "it has a query"),
            ('type = "openai"\nbase_url = "https://x/#a"', "it has a fragment"),
            ('type = "openai"\nbase_url = "https://x y/"', "it has spaces"),
            ('type = "openai"\nmax_retries = -1', "allowed is a whole number from 0"),
            ('type = "openai"\napi_kye = "x"', "did you mean api_key?"),
            ('type = "copilot"\napi_key = "x"', "a copilot provider has no key of its own; users bring theirs"),
            (
                'type = "openai"\napi_key_env = "NOT_SET"',
                'providers[0].api_key_env ("openai"): the variable NOT_SET is not set; '
                "put the provider's key into NOT_SET, or name another variable",
            ),
            (
                'type = "openai"\napi_key = "x"\napi_key_env = "OPENAI_API_KEY"',
                'providers[0] ("openai"): both api_key and api_key_env are set; keep one of them',
            ),
            ('type = "openai"\napi_keys = ["x"]\napi_key_envs = ["X"]', "both api_keys and api_key_envs are set"),
            ('type = "openai"\napi_keys = []', "found a list; allowed is a list of texts of visible ASCII characters"),
            ('type = "openai"\napi_key_envs = ["NOT_SET"]', "api_key_envs"),
            ('type = "openai"\nkey_header = "api key"', "allowed is the name of a header"),
            ('type = "openai"\nheaders = { authorization = "x" }', 'the header "authorization" holds a credential'),
            ('type = "openai"\nheaders = { a = 1 }', "a value is not a text of one line"),
            ('type = "anthropic"\nask_for_usage = false', "it is a setting of openai providers only; remove it"),
            ('type = "openai"\nquery = "a=b"', "found a text (not shown); allowed is a table"),
        ],
    )
    def test_are_checked(self, problems: Callable[..., list[str]], toml: str, said: str) -> None:
        assert any(said in problem for problem in problems(f"[[providers]]\n{toml}"))

    def test_are_a_list_of_tables(self, problems: Callable[..., list[str]]) -> None:
        assert problems('[providers]\ntype = "openai"') == [
            "providers: found a table; allowed is a list of tables, each of which begins with a line [[providers]]"
        ]

    def test_have_names_of_their_own(self, problems: Callable[..., list[str]]) -> None:
        assert problems('[[providers]]\ntype = "openai"\n[[providers]]\ntype = "openai"') == [
            'providers[1].name: "openai" is already the name of providers[0]; each needs a name of its own'
        ]


class TestBedrock:
    def test_takes_its_region_and_key_from_where_aws_clients_do(self, settings: Callable[..., Settings]) -> None:
        environ = {"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "us-west-2", "AWS_BEARER_TOKEN_BEDROCK": KEY}
        (provider,) = settings('[[providers]]\ntype = "bedrock"', **environ).providers
        assert (provider.name, provider.region) == ("bedrock", "eu-west-1")
        assert provider.base_url == "https://bedrock-runtime.eu-west-1.amazonaws.com"
        assert provider.api_key == Secret(KEY)

    def test_prefers_its_settings(self, settings: Callable[..., Settings]) -> None:
        environ = {"AWS_REGION": "eu-west-1", "AWS_BEARER_TOKEN_BEDROCK": "another"}
        toml = f"""
            [[providers]]
            type = "bedrock"
            region = "us-gov-west-1"
            base_url = "https://vpce-1.bedrock-runtime.us-gov-west-1.vpce.amazonaws.com/"
            access_key = "AKIA0123456789"
            access_key_secret = "{KEY}"
            model = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
            """
        (provider,) = settings(toml, **environ).providers
        assert (provider.region, provider.api_key) == ("us-gov-west-1", None)
        assert provider.base_url == "https://vpce-1.bedrock-runtime.us-gov-west-1.vpce.amazonaws.com"
        assert provider.access_key_secret == Secret(KEY)
        assert KEY not in repr(provider)
        assert "AKIA" not in repr(provider)

    def test_can_be_had_from_the_environment_alone(self, settings: Callable[..., Settings]) -> None:
        environ = {"AIBRIDGE_PROVIDERS_BEDROCK_REGION": "eu-central-1", "AIBRIDGE_PROVIDERS_BEDROCK_MODEL": "m"}
        (provider,) = (each for each in settings(**environ).providers if each.type == "bedrock")
        assert (provider.region, provider.model) == ("eu-central-1", "m")
        assert not [each for each in settings().providers if each.type == "bedrock"]

    @pytest.mark.parametrize(
        ("toml", "said"),
        [
            ("", 'providers[0].region ("bedrock"): it is missing; allowed is the name of an AWS region'),
            ('region = "Frankfurt"', 'found "Frankfurt"; allowed is the name of an AWS region, such as "us-east-1"'),
            (f'access_key_secret = "{KEY}"', "access_key_secret is set, but no access_key; set access_key as well, or"),
            ('access_key = "AKIA"', "access_key is set, but no access_key_secret; set access_key_secret as well, or"),
            (f'session_token = "{KEY}"', "session_token is set, but no access_key"),
            ('query = { a = "b" }', "a bedrock provider has no use for it; remove it"),
            (
                f'profile = "p"\naccess_key = "AKIA"\naccess_key_secret = "{KEY}"',
                "both access_key and profile are set; keep one way to get credentials",
            ),
        ],
    )
    def test_is_checked(self, problems: Callable[..., list[str]], toml: str, said: str) -> None:
        (problem,) = (each for each in problems(f'[[providers]]\ntype = "bedrock"\n{toml}') if said in each)
        assert problem.startswith("providers[0]")

    def test_has_settings_of_its_own(self, problems: Callable[..., list[str]]) -> None:
        assert problems('[[providers]]\ntype = "openai"\nregion = "us-east-1"') == [
            'providers[0].region ("openai"): it is a setting of bedrock providers only; remove it'
        ]


class TestMCPServers:
    @pytest.mark.parametrize(
        ("toml", "said"),
        [
            ('url = "http://x/"', "mcp_servers[0].name: it is missing"),
            ('name = "a"', 'mcp_servers[0] ("a"): neither url nor command is set'),
            ('name = "a"\nurl = "http://x/"\ncommand = ["y"]', "both url and command are set"),
            ('name = "a"\nurl = "x"', 'mcp_servers[0].url ("a"): found "x"'),
            ('name = "a"\ncommand = "npx server"', "allowed is a list of texts"),
            ('name = "a"\ncommand = []', "allowed is a list of texts"),
            ('name = "a"\nurl = "http://x/"\ntool_allow = "("', "unterminated subpattern"),
            ('name = "a"\nurl = "http://x/"\nheaders = { "A B" = "c" }', "a name is not that of a header"),
            ('name = "a"\nurl = "http://x/"\nheaders = { A = "c\\nd" }', "a value is not a text of one line"),
            ('name = "a"\ncommand = ["x"]\nheaders = { A = "c" }', "a server that is started has no headers"),
        ],
    )
    def test_are_checked(self, problems: Callable[..., list[str]], toml: str, said: str) -> None:
        assert any(said in problem for problem in problems(f"[[mcp_servers]]\n{toml}"))


class TestSecrets:
    def test_are_in_no_repr(self, settings: Callable[..., Settings]) -> None:
        read = settings(
            f"""
            [[providers]]
            type = "openai"
            api_key = "{KEY}"
            [[mcp_servers]]
            name = "a"
            url = "https://x/mcp?key={KEY}"
            headers = {{ Authorization = "{KEY}" }}
            [[mcp_servers]]
            name = "b"
            command = ["server", "--key={KEY}"]
            """
        )

        assert KEY not in repr(read)
        assert KEY not in f"{read.providers[0].api_key}"
        assert "https://x/mcp?***" in repr(read)
        assert read.providers[0].api_key is not None
        assert read.providers[0].api_key.reveal() == KEY

    @pytest.mark.parametrize(
        "toml",
        [
            f'[[providers]]\ntype = "openai"\napi_key = "{KEY} {KEY}"',
            f'[[providers]]\ntype = "openai"\napi_key = ["{KEY}"]',
            f'[[providers]]\ntype = "openai"\napi_key_env = "{KEY}"',
            f'[[providers]]\ntype = "openai"\nbase_url = "https://me:{KEY}@x/"',
            f'[[providers]]\ntype = "openai"\nbase_url = "https:me:{KEY}@x/"',
            f'[[providers]]\ntype = "openai"\nbase_url = "https://x/?key={KEY}"',
            f'[storage]\nurl = "mysql://me:{KEY}@x/"',
            f'[[mcp_servers]]\nname = "a"\nurl = "https://x/"\nheaders = {{ A = ["{KEY}"] }}',
        ],
    )
    def test_are_in_no_error(self, problems: Callable[..., list[str]], toml: str) -> None:
        assert problems(toml), "the fixture looks for the key in all that is said"

    def test_reach_worker_processes(self, settings: Callable[..., Settings]) -> None:
        read = settings(f'[[providers]]\ntype = "openai"\napi_key = "{KEY}"')

        assert pickle.loads(pickle.dumps(read)) == read


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("30s", 30.0),
        ("10m", 600.0),
        ("1h30m", 5400.0),
        ("500ms", 0.5),
        ("1.5s", 1.5),
        ("1d", 86400.0),
        (7, 7.0),
        ("0", 0),
    ],
)
def test_durations_are_written_as_people_write_them(written: object, meant: float) -> None:
    assert seconds(written) == meant


class TestOpenTelemetrysOwnVariables:
    ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}

    def test_switch_tracing_on(self, settings: Callable[..., Settings]) -> None:
        assert settings().tracing == Tracing()
        told = {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_HEADERS": "api-key=a%20b, X-Team=sea"}

        read = settings(**self.ENDPOINT, **told).tracing

        headers = {"api-key": Secret("a b"), "X-Team": Secret("sea")}
        assert read == Tracing(endpoint="http://collector:4318", protocol="grpc", headers=headers)

    def test_of_traces_win_over_those_of_everything(self, settings: Callable[..., Settings]) -> None:
        told = {
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://traces:4318",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        }

        read = settings(**self.ENDPOINT, **told).tracing

        assert (read.endpoint, read.protocol) == ("http://traces:4318", "http")

    def test_yield_to_the_gateways_settings(self, settings: Callable[..., Settings]) -> None:
        assert settings('[tracing]\nendpoint = ""', **self.ENDPOINT).tracing.endpoint == ""
        assert settings(**self.ENDPOINT, AIBRIDGE_TRACING_ENDPOINT="http://own:1").tracing.endpoint == "http://own:1"

    @pytest.mark.parametrize("off", [{"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_EXPORTER": "none"}])
    def test_can_also_switch_it_off(self, settings: Callable[..., Settings], off: dict[str, str]) -> None:
        assert settings(**self.ENDPOINT, **off).tracing.endpoint == ""

    def test_are_named_where_they_are_wrong(self, problems: Callable[..., list[str]]) -> None:
        (told,) = problems(**self.ENDPOINT, OTEL_EXPORTER_OTLP_PROTOCOL="http/json")

        assert told.startswith('tracing.protocol (from OTEL_EXPORTER_OTLP_PROTOCOL): found "http/json"; allowed is')


class TestProxies:
    """The variables that most programs know, and the gateway's own."""

    def test_are_those_of_the_environment(self, settings: Callable[..., Settings]) -> None:
        read = settings(
            HTTP_PROXY="proxy.example:3128", https_proxy=f"http://me:{KEY}@proxy.example", NO_PROXY="a.example"
        ).upstream

        assert (read.http_proxy, read.no_proxy) == ("http://proxy.example:3128", "a.example")
        assert read.https_proxy == f"http://me:{KEY}@proxy.example"
        assert KEY not in repr(read)

    def test_are_by_one_variable_where_there_is_no_other(self, settings: Callable[..., Settings]) -> None:
        read = settings(ALL_PROXY="http://all.example", HTTPS_PROXY="http://tls.example").upstream

        assert (read.http_proxy, read.https_proxy) == ("http://all.example", "http://tls.example")

    def test_can_be_others_or_none(self, settings: Callable[..., Settings]) -> None:
        read = settings('[upstream]\nhttp_proxy = ""', HTTP_PROXY="http://a.example", HTTPS_PROXY="http://a.example")
        assert (read.upstream.http_proxy, read.upstream.https_proxy) == ("", "http://a.example")
        assert settings(HTTPS_PROXY="http://a.example", AIBRIDGE_UPSTREAM_HTTPS_PROXY="").upstream.https_proxy == ""

    @pytest.mark.parametrize("url", [f"socks5://me:{KEY}@proxy.example", f"https://me:{KEY}@proxy.example", "http://"])
    def test_of_other_kinds_are_refused(self, problems: Callable[..., list[str]], url: str) -> None:
        (said,) = problems(HTTPS_PROXY=url)

        assert said.startswith("upstream.https_proxy (from HTTPS_PROXY): found ")


@pytest.mark.parametrize("told", ["-0.1", "1.5", "half", "true"])
def test_a_ratio_is_between_nothing_and_all(told: str, problems: Callable[..., list[str]]) -> None:
    (said,) = problems(AIBRIDGE_TRACING_SAMPLE_RATIO=told)

    assert said.endswith("allowed is a number from 0 to 1")
