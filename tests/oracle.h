// A second reading of RFC 9110, 9112 and 3986, to compare the parser with: it sees the whole input at once, walks it byte by
// byte, and cares for nothing but being plain. It finds the facts that drive.h knows.
//
//     struct facts f = {NULL, 0, 0};
//     oracle(&input, &f);            // under the default limits

#ifndef TEST_ORACLE_H
#define TEST_ORACLE_H

#include "drive.h"
#include <arpa/inet.h>
#include <strings.h>

#define ORACLE_HEAD       16384
#define ORACLE_TARGET     8192
#define ORACLE_BODY       1048576
#define ORACLE_EXTENSIONS 4096
#define ORACLE_TRAILERS   8192

struct oracle {
    const char *ptr, *end, *at;
    struct facts *facts;
    const char *section; // start of the head or trailer section
    long section_max;
    int section_status; // what it gets when it is too long, and the name of the log item
    const char *section_item;
    httpsrv_head head;
    httpsrv_field fields[MAX_FIELDS];
    struct bytes body;
    long extensions;
    bool stopped; // refused or out of input
};

#define ORACLE_ALPHA        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define ORACLE_DIGIT        "0123456789"
#define ORACLE_HEX          ORACLE_DIGIT "abcdefABCDEF"
#define ORACLE_TCHAR        "!#$%&'*+-.^_`|~" ORACLE_DIGIT ORACLE_ALPHA
#define ORACLE_UNRESERVED   ORACLE_ALPHA ORACLE_DIGIT "-._~"
#define ORACLE_SUB_DELIMS   "!$&'()*+,;="
#define ORACLE_TARGET_CHARS ORACLE_UNRESERVED ORACLE_SUB_DELIMS ":@/?%"

TEST_FN bool among(int byte, const char *set) {
    return byte > 0 && strchr(set, byte) != NULL;
}

// ---- reading ----

TEST_FN bool refuse(struct oracle *o, int status, const char *item) {
    char text[64];
    if (!o->stopped) {
        snprintf(text, sizeof text, "%d %s", status, item);
        add_text(o->facts, "error", false, text);
    }
    o->stopped = true;
    return false;
}

// The next byte, or -1 at the end of the input or of the patience.
TEST_FN int take(struct oracle *o) {
    if (o->stopped) return -1;
    if (o->at == o->end) {
        append(add_fact(o->facts, "body", o->body.len == 0), o->body.ptr, o->body.len);
        add_fact(o->facts, "more", false);
        o->stopped = true;
        return -1;
    }
    if (o->section && o->at - o->section >= o->section_max) {
        refuse(o, o->section_status, o->section_item);
        return -1;
    }
    return (unsigned char)*o->at++;
}

TEST_FN bool take_this(struct oracle *o, int byte, const char *item) {
    int got = take(o);
    if (got < 0) return false;
    return got == byte || refuse(o, 400, item);
}

TEST_FN httpsrv_str since(const struct oracle *o, const char *start) {
    httpsrv_str view = {start, (size_t)(o->at - start)};
    return view;
}

TEST_FN bool is_text(httpsrv_str view, const char *text) {
    return view.len == strlen(text) && (view.len == 0 || strncasecmp(view.ptr, text, view.len) == 0);
}

// ---- pieces of a URI, as views ----

TEST_FN bool all_of(httpsrv_str s, const char *set, bool percent) {
    for (size_t i = 0; i < s.len; i++) {
        if (percent && s.ptr[i] == '%') {
            if (s.len - i < 3 || !among(s.ptr[i + 1], ORACLE_HEX) || !among(s.ptr[i + 2], ORACLE_HEX)) return false;
            i += 2;
        } else if (!among((unsigned char)s.ptr[i], set)) {
            return false;
        }
    }
    return true;
}

TEST_FN bool is_ip_future(httpsrv_str s) {
    size_t digits = 0;
    if (s.len < 1 || !among(s.ptr[0], "vV")) return false;
    while (1 + digits < s.len && among(s.ptr[1 + digits], ORACLE_HEX))
        digits++;
    if (digits == 0 || s.len < digits + 3 || s.ptr[1 + digits] != '.') return false;
    s.ptr += digits + 2;
    s.len -= digits + 2;
    return all_of(s, ORACLE_UNRESERVED ORACLE_SUB_DELIMS ":", false);
}

TEST_FN bool is_ip_literal(httpsrv_str s) {
    char text[64], address[16];
    if (s.len < 2 || s.ptr[0] != '[' || s.ptr[s.len - 1] != ']') return false;
    s.ptr++;
    s.len -= 2;
    if (is_ip_future(s)) return true;
    if (s.len >= sizeof text || !all_of(s, ORACLE_HEX ":.", false)) return false;
    memcpy(text, s.ptr, s.len);
    text[s.len] = 0;
    return inet_pton(AF_INET6, text, address) == 1;
}

TEST_FN bool is_port(httpsrv_str s, long *out) {
    long port = 0;
    for (size_t i = 0; i < s.len; i++) {
        if (!among(s.ptr[i], ORACLE_DIGIT)) return false;
        port = port * 10 + (s.ptr[i] - '0');
        if (port > 65535) return false;
    }
    *out = port;
    return true;
}

// uri-host [ ":" port ]; CONNECT needs a port, and a real one.
TEST_FN bool is_authority(httpsrv_str s, bool need_port) {
    httpsrv_str host = s, port = {NULL, 0};
    long number = 0;
    size_t from = s.len && s.ptr[0] == '[' ? s.len : 0;
    for (size_t i = 0; from && i < s.len; i++)
        if (s.ptr[i] == ']') {
            from = i + 1;
            break;
        }
    for (size_t i = from; i < s.len; i++)
        if (s.ptr[i] == ':') {
            host.len = i;
            port.ptr = s.ptr + i + 1;
            port.len = s.len - i - 1;
            break;
        }
    if (host.len == 0 || !is_port(port, &number) || (need_port && number == 0)) return false;
    if (host.ptr[0] == '[') return is_ip_literal(host);
    return all_of(host, ORACLE_UNRESERVED ORACLE_SUB_DELIMS, true);
}

// ---- request line ----

TEST_FN bool read_empty_lines(struct oracle *o) {
    for (int n = 0; o->at < o->end && *o->at == '\r'; n++) {
        take(o);
        if (!take_this(o, '\n', "BAD_REQUEST_LINE")) return false;
        if (n == 4) return refuse(o, 400, "BAD_REQUEST_LINE");
    }
    return true;
}

TEST_FN bool read_method(struct oracle *o) {
    const char *start = o->at;
    for (;;) {
        int byte = take(o);
        if (byte < 0) return false;
        if (byte == ' ' && o->at - start > 1) break;
        if (among(byte, "\r\n")) return refuse(o, 400, "BAD_REQUEST_LINE");
        if (!among(byte, ORACLE_TCHAR)) return refuse(o, 400, "BAD_METHOD");
        if (o->at - start > ORACLE_TARGET) return refuse(o, 414, "URI_TOO_LONG");
    }
    o->head.method = since(o, start);
    o->head.method.len--;
    o->head.method_id = method_of(o->head.method);
    return true;
}

// Up to the space; what no target has is refused where it stands.
TEST_FN bool read_target(struct oracle *o) {
    const char *start = o->at;
    for (;;) {
        int byte = take(o);
        if (byte < 0) return false;
        if (among(byte, "\r\n") || (byte == ' ' && o->at - start == 1)) return refuse(o, 400, "BAD_REQUEST_LINE");
        if (byte == ' ') break;
        if (o->at - start > ORACLE_TARGET) return refuse(o, 414, "URI_TOO_LONG");
        if (!among(byte, *start == '/' ? ORACLE_TARGET_CHARS : ORACLE_TARGET_CHARS "[]"))
            return refuse(o, 400, "BAD_TARGET");
    }
    o->head.target = since(o, start);
    o->head.target.len--;
    return all_of(o->head.target, ORACLE_TARGET_CHARS "[]", true) || refuse(o, 400, "BAD_TARGET");
}

TEST_FN bool split_query(httpsrv_str s, httpsrv_head *head) {
    const char *mark = (const char *)memchr(s.ptr, '?', s.len);
    head->path = s;
    if (mark) {
        head->path.len = (size_t)(mark - s.ptr);
        head->query.ptr = mark + 1;
        head->query.len = s.len - head->path.len - 1;
    }
    if (head->path.len == 0) head->path = HTTPSRV_STR("/");
    return all_of(head->path, ORACLE_UNRESERVED ORACLE_SUB_DELIMS ":@/", true) &&
           all_of(head->query, ORACLE_UNRESERVED ORACLE_SUB_DELIMS ":@/?", true);
}

TEST_FN bool is_absolute(httpsrv_str s, httpsrv_head *head) {
    size_t scheme = s.len > 7 && strncasecmp(s.ptr, "http://", 7) == 0    ? 7
                    : s.len > 8 && strncasecmp(s.ptr, "https://", 8) == 0 ? 8
                                                                          : 0;
    size_t len = scheme;
    if (scheme == 0) return false;
    while (len < s.len && !among(s.ptr[len], "/?"))
        len++;
    head->form = HTTPSRV_FORM_ABSOLUTE;
    head->authority.ptr = s.ptr + scheme;
    head->authority.len = len - scheme;
    s.ptr += len;
    s.len -= len;
    return is_authority(head->authority, false) && split_query(s, head);
}

TEST_FN bool is_target(httpsrv_str s, httpsrv_head *head) {
    bool connect = head->method_id == HTTPSRV_METHOD_CONNECT;
    if (connect || s.len == 0) {
        head->form = HTTPSRV_FORM_AUTHORITY;
        head->authority = s;
        head->path = s;
        return connect && is_authority(s, true);
    }
    if (is_text(s, "*")) {
        head->form = HTTPSRV_FORM_ASTERISK;
        head->path = s;
        return head->method_id == HTTPSRV_METHOD_OPTIONS;
    }
    if (s.ptr[0] != '/') return is_absolute(s, head);
    head->form = HTTPSRV_FORM_ORIGIN;
    return split_query(s, head);
}

TEST_FN bool read_version(struct oracle *o) {
    static const char name[] = "HTTP/";
    int major, minor;
    for (int i = 0; i < 5; i++)
        if (!take_this(o, name[i], "BAD_REQUEST_LINE")) return false;
    if ((major = take(o)) < 0) return false;
    if (!among(major, ORACLE_DIGIT)) return refuse(o, 400, "BAD_REQUEST_LINE");
    if (!take_this(o, '.', "BAD_REQUEST_LINE")) return false;
    if ((minor = take(o)) < 0) return false;
    if (!among(minor, ORACLE_DIGIT)) return refuse(o, 400, "BAD_REQUEST_LINE");
    if (!take_this(o, '\r', "BAD_REQUEST_LINE") || !take_this(o, '\n', "BAD_REQUEST_LINE")) return false;
    o->head.version_minor = minor - '0';
    return major == '1' || refuse(o, 505, "BAD_VERSION");
}

// ---- fields ----

// What a field too many gets.
struct overflow {
    int status;
    const char *item;
};

// One line; *end says that it was the empty one. A field too many is refused where its name ends: what is wrong with
// its value nobody looks at.
TEST_FN bool read_field(struct oracle *o, const char *item, struct overflow full, httpsrv_field *field, bool *end) {
    const char *start = o->at;
    int byte = take(o);
    *end = byte == '\r';
    if (*end) return take_this(o, '\n', item);
    for (; byte != ':'; byte = take(o)) {
        if (byte < 0) return false;
        if (!among(byte, ORACLE_TCHAR)) return refuse(o, 400, item);
    }
    if (o->at - start == 1) return refuse(o, 400, item);
    if (o->head.num_fields == MAX_FIELDS) return refuse(o, full.status, full.item);
    field->name = since(o, start);
    field->name.len--;
    start = o->at;
    while ((byte = take(o)) != '\r') {
        if (byte < 0) return false;
        if ((byte < 32 && byte != '\t') || byte == 127) return refuse(o, 400, item);
    }
    field->value = since(o, start);
    field->value.len--;
    while (field->value.len && among(field->value.ptr[field->value.len - 1], " \t"))
        field->value.len--;
    while (field->value.len && among(field->value.ptr[0], " \t")) {
        field->value.ptr++;
        field->value.len--;
    }
    return take_this(o, '\n', item);
}

TEST_FN const httpsrv_field *find_field(const httpsrv_head *head, const char *name, int *at) {
    for (; *at < head->num_fields; ++*at)
        if (is_text(head->fields[*at].name, name)) return &head->fields[(*at)++];
    return NULL;
}

TEST_FN int count_named(const httpsrv_head *head, const char *name) {
    int at = 0, n = 0;
    while (find_field(head, name, &at))
        n++;
    return n;
}

TEST_FN httpsrv_str value_of(const httpsrv_head *head, const char *name) {
    httpsrv_str none = {NULL, 0};
    int at = 0;
    const httpsrv_field *field = find_field(head, name, &at);
    return field ? field->value : none;
}

// Takes the next element off a list, empty ones included; false at its end.
TEST_FN bool next_element(httpsrv_str *list, httpsrv_str *element) {
    bool quoted = false;
    size_t i = 0;
    if (!list->ptr) return false;
    for (; i < list->len && (quoted || list->ptr[i] != ','); i++) {
        quoted = quoted != (list->ptr[i] == '"');
        i += quoted && list->ptr[i] == '\\' && i + 1 < list->len;
    }
    element->ptr = list->ptr;
    element->len = i;
    list->ptr = i < list->len ? list->ptr + i + 1 : NULL;
    list->len -= i < list->len ? i + 1 : i;
    for (; element->len && among(*element->ptr, " \t"); element->len--)
        element->ptr++;
    while (element->len && among(element->ptr[element->len - 1], " \t"))
        element->len--;
    return true;
}

// Whether the list in the fields of that name has the token.
TEST_FN bool lists(const httpsrv_head *head, const char *name, const char *token) {
    const httpsrv_field *field;
    int at = 0;
    while ((field = find_field(head, name, &at)) != NULL) {
        httpsrv_str list = field->value, element;
        while (next_element(&list, &element))
            if (is_text(element, token)) return true;
    }
    return false;
}

TEST_FN bool is_token_list(httpsrv_str list) {
    httpsrv_str element;
    while (next_element(&list, &element))
        if (!all_of(element, ORACLE_TCHAR, false)) return false;
    return true;
}

TEST_FN int64_t length_value(httpsrv_str s) {
    int64_t n = 0;
    if (s.len == 0 || !all_of(s, ORACLE_DIGIT, false)) return -1;
    for (size_t i = 0; i < s.len; i++) {
        int digit = s.ptr[i] - '0';
        if (n > (INT64_MAX - digit) / 10) return -1;
        n = n * 10 + digit;
    }
    return n;
}

// What can be said about a field without those behind it.
TEST_FN bool judge_field(struct oracle *o, const httpsrv_field *field) {
    if (is_text(field->name, "Host") && (count_named(&o->head, "Host") > 1 || !is_authority(field->value, false)))
        return refuse(o, 400, "BAD_HOST");
    if (is_text(field->name, "Content-Length") &&
        (count_named(&o->head, "Content-Length") > 1 || length_value(field->value) < 0))
        return refuse(o, 400, "BAD_LENGTH");
    if (is_text(field->name, "Connection") && !is_token_list(field->value)) return refuse(o, 400, "BAD_FIELD");
    return true;
}

TEST_FN bool read_fields(struct oracle *o) {
    static const struct overflow full = {431, "HEAD_TOO_LARGE"};
    bool end = false;
    o->head.fields = o->fields;
    for (;;) {
        httpsrv_field field;
        if (!read_field(o, "BAD_FIELD", full, &field, &end)) return false;
        if (end) return true;
        o->fields[o->head.num_fields++] = field;
        if (!judge_field(o, &field)) return false;
    }
}

// ---- framing ----

// Reads a token or quoted string at *at; false if there is none.
TEST_FN bool skip_word(httpsrv_str s, size_t *at, bool quoted) {
    size_t start = *at;
    if (quoted && *at < s.len && s.ptr[*at] == '"') {
        for (++*at; *at < s.len; ++*at) {
            if (s.ptr[*at] == '"') return ++*at, true;
            if (s.ptr[*at] == '\\') ++*at;
        }
        return false;
    }
    while (*at < s.len && among((unsigned char)s.ptr[*at], ORACLE_TCHAR))
        ++*at;
    return *at > start;
}

TEST_FN void skip_blanks(httpsrv_str s, size_t *at) {
    while (*at < s.len && among(s.ptr[*at], " \t"))
        ++*at;
}

// What one list of codings adds; false if it is malformed.
TEST_FN bool read_codings(httpsrv_str s, int *chunked, int *others, bool *last) {
    size_t at = 0;
    for (;;) {
        httpsrv_str name;
        bool parameters = false;
        while (at < s.len && among(s.ptr[at], " \t,"))
            at++;
        if (at == s.len) return true;
        name.ptr = s.ptr + at;
        if (!skip_word(s, &at, false)) return false;
        name.len = (size_t)(s.ptr + at - name.ptr);
        for (skip_blanks(s, &at); at < s.len && s.ptr[at] == ';'; skip_blanks(s, &at)) {
            parameters = true;
            skip_blanks(s, (at++, &at));
            if (!skip_word(s, &at, false)) return false;
            skip_blanks(s, &at);
            if (at == s.len || s.ptr[at++] != '=') return false;
            skip_blanks(s, &at);
            if (!skip_word(s, &at, true)) return false;
        }
        if (at < s.len && s.ptr[at] != ',') return false;
        *last = is_text(name, "chunked");
        if (*last && parameters) return false;
        ++*(*last ? chunked : others);
    }
}

TEST_FN bool judge_codings(struct oracle *o) {
    int at = 0, chunked = 0, others = 0;
    bool last = false, fine = o->head.version_minor > 0;
    const httpsrv_field *field;
    while ((field = find_field(&o->head, "Transfer-Encoding", &at)) != NULL)
        fine = fine && read_codings(field->value, &chunked, &others, &last);
    if (!fine || !last || chunked != 1) return refuse(o, 400, "BAD_CODING");
    if (others) return refuse(o, 501, "UNKNOWN_CODING");
    o->head.chunked = true;
    return true;
}

TEST_FN bool judge_framing(struct oracle *o) {
    bool codings = count_named(&o->head, "Transfer-Encoding") > 0;
    if (o->head.version_minor > 0 && !o->head.host.ptr) return refuse(o, 400, "BAD_HOST");
    if (count_named(&o->head, "Content-Length")) {
        if (codings) return refuse(o, 400, "BAD_LENGTH");
        o->head.content_length = length_value(value_of(&o->head, "Content-Length"));
        if (o->head.content_length > ORACLE_BODY) return refuse(o, 413, "BODY_TOO_LARGE");
    }
    return !codings || judge_codings(o);
}

TEST_FN void judge_expect(httpsrv_head *head) {
    const httpsrv_field *field;
    int at = 0;
    while (head->version_minor > 0 && (field = find_field(head, "Expect", &at)) != NULL) {
        httpsrv_str list = field->value, element;
        while (next_element(&list, &element)) {
            head->expect_continue |= is_text(element, "100-continue");
            head->expect_other |= element.len && !is_text(element, "100-continue");
        }
    }
}

TEST_FN void judge_connection(httpsrv_head *head) {
    head->keep_alive =
        !lists(head, "Connection", "close") && (head->version_minor > 0 || lists(head, "Connection", "keep-alive"));
    head->upgrade = head->version_minor > 0 && lists(head, "Connection", "upgrade") && count_named(head, "Upgrade") > 0;
}

TEST_FN void begin_section(struct oracle *o, long max, int status, const char *item) {
    o->section = o->at;
    o->section_max = max;
    o->section_status = status;
    o->section_item = item;
}

TEST_FN bool read_head(struct oracle *o) {
    memset(&o->head, 0, sizeof o->head);
    o->head.content_length = -1;
    begin_section(o, ORACLE_HEAD, 431, "HEAD_TOO_LARGE");
    if (!read_empty_lines(o) || !read_method(o) || !read_target(o)) return false;
    if (!read_version(o)) return false;
    if (!is_target(o->head.target, &o->head)) return refuse(o, 400, "BAD_TARGET");
    if (!read_fields(o)) return false;
    o->head.host = value_of(&o->head, "Host");
    o->head.content_type = value_of(&o->head, "Content-Type");
    if (!o->head.authority.ptr) o->head.authority = o->head.host;
    if (!judge_framing(o)) return false;
    judge_expect(&o->head);
    judge_connection(&o->head);
    o->section = NULL;
    add_head_facts(o->facts, &o->head);
    return true;
}

// ---- bodies ----

TEST_FN bool read_data(struct oracle *o, int64_t n) {
    while (n-- > 0) {
        int byte = take(o);
        char c = (char)byte;
        if (byte < 0) return false;
        append(&o->body, &c, 1);
    }
    return true;
}

// A byte of a chunk's extensions, counted.
TEST_FN int take_extension(struct oracle *o) {
    int byte = take(o);
    if (byte < 0 || byte == '\r') return byte;
    if (++o->extensions <= ORACLE_EXTENSIONS) return byte;
    refuse(o, 400, "BAD_CHUNK");
    return -1;
}

TEST_FN int skip_extension_blanks(struct oracle *o, int byte) {
    while (byte == ' ' || byte == '\t')
        byte = take_extension(o);
    return byte;
}

// A quoted string behind its first quote; the byte behind it, 0 if it is malformed.
TEST_FN int read_quoted(struct oracle *o) {
    for (;;) {
        int byte = take_extension(o);
        if (byte < 0) return byte;
        if (byte == '"') return take_extension(o);
        if (byte == '\\') byte = take_extension(o);
        if (byte < 0) return byte;
        if ((byte < 32 && byte != '\t') || byte == 127) return 0;
    }
}

// A token that begins with `byte`; the byte behind it, 0 if there is none.
TEST_FN int read_token(struct oracle *o, int byte) {
    if (byte >= 0 && !among(byte, ORACLE_TCHAR)) return 0;
    while (among(byte, ORACLE_TCHAR))
        byte = take_extension(o);
    return byte;
}

// What may follow the name of an extension: a value. `byte` is the one behind the name.
TEST_FN int read_extension_value(struct oracle *o, int byte) {
    int next = skip_extension_blanks(o, byte);
    if (next < 0 || next == ';') return next;
    if (next != '=') return byte == '\r' ? byte : 0;
    next = skip_extension_blanks(o, take_extension(o));
    return next == '"' ? read_quoted(o) : read_token(o, next);
}

// The extensions from `byte`, the one behind the size, up to the CR; 0 if they are malformed.
TEST_FN int read_extensions(struct oracle *o, int byte) {
    while (byte > 0 && byte != '\r') {
        byte = skip_extension_blanks(o, byte);
        if (byte != ';') return byte < 0 ? byte : 0;
        byte = read_token(o, skip_extension_blanks(o, take_extension(o)));
        if (byte > 0) byte = read_extension_value(o, byte);
    }
    return byte;
}

// The size of the next chunk, or -1.
TEST_FN int64_t read_chunk_size(struct oracle *o) {
    int64_t size = 0;
    int byte, digits = 0;
    while (among(byte = take(o), ORACLE_HEX)) {
        if (++digits > 16 || size > INT64_MAX / 16) return refuse(o, 400, "BAD_CHUNK"), -1;
        size = size * 16 + hex_value(byte);
    }
    if (byte < 0) return -1;
    if (digits == 0) return refuse(o, 400, "BAD_CHUNK"), -1;
    if (byte != '\r' && byte != ';' && byte != ' ' && byte != '\t') return refuse(o, 400, "BAD_CHUNK"), -1;
    o->extensions += byte != '\r';
    if ((byte = read_extensions(o, byte)) < 0) return -1;
    if (byte == 0) return refuse(o, 400, "BAD_CHUNK"), -1;
    if (!take_this(o, '\n', "BAD_CHUNK")) return -1;
    if (size > ORACLE_BODY - (int64_t)o->body.len) return refuse(o, 413, "BODY_TOO_LARGE"), -1;
    return size;
}

TEST_FN bool is_forbidden(httpsrv_str name) {
    static const char *const names[] = {"Content-Length",
                                        "Transfer-Encoding",
                                        "Host",
                                        "Connection",
                                        "Keep-Alive",
                                        "Trailer",
                                        "TE",
                                        "Upgrade",
                                        "Expect",
                                        "Content-Type",
                                        "Content-Encoding",
                                        "Content-Range",
                                        "Authorization",
                                        "Proxy-Authorization",
                                        "Cookie",
                                        "Set-Cookie",
                                        "Cache-Control",
                                        "Max-Forwards",
                                        "Range",
                                        "If-Match",
                                        "If-None-Match",
                                        "If-Range",
                                        "If-Modified-Since",
                                        "If-Unmodified-Since"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (is_text(name, names[i])) return true;
    return false;
}

TEST_FN bool read_trailers(struct oracle *o) {
    static const struct overflow full = {400, "BAD_TRAILER"};
    bool end = false;
    o->head.num_fields = 0;
    begin_section(o, ORACLE_TRAILERS, 400, "BAD_TRAILER");
    for (;;) {
        httpsrv_field field;
        if (!read_field(o, "BAD_TRAILER", full, &field, &end)) return false;
        if (end) break;
        if (is_forbidden(field.name)) return refuse(o, 400, "BAD_TRAILER");
        o->fields[o->head.num_fields++] = field;
    }
    o->section = NULL;
    add_number(o->facts, "trailers", o->head.num_fields == 0, o->head.num_fields);
    add_fields(o->facts, "trailer", &o->head);
    return true;
}

TEST_FN bool read_chunks(struct oracle *o) {
    int64_t size;
    o->extensions = 0;
    while ((size = read_chunk_size(o)) > 0)
        if (!read_data(o, size) || !take_this(o, '\r', "BAD_CHUNK") || !take_this(o, '\n', "BAD_CHUNK")) return false;
    return size == 0 && read_trailers(o);
}

TEST_FN bool read_message(struct oracle *o) {
    o->body.len = 0;
    if (!read_head(o)) return false;
    if (o->head.chunked ? !read_chunks(o) : !read_data(o, o->head.content_length)) return false;
    append(add_fact(o->facts, "body", o->body.len == 0), o->body.ptr, o->body.len);
    add_fact(o->facts, "done", false);
    return true;
}

TEST_FN void oracle(const struct bytes *in, struct facts *facts) {
    struct oracle o;
    memset(&o, 0, sizeof o);
    o.ptr = o.at = in->ptr;
    o.end = in->ptr + in->len;
    o.facts = facts;
    while (o.at < o.end && read_message(&o))
        continue;
    release_bytes(&o.body);
}

#endif // TEST_ORACLE_H
