// Routes and answers: parameters, wildcard, query, fields, and the ways to answer.
//
//     cc -I. examples/routes.c -pthread -o routes && ./routes    (./routes 9000: another port)
//
//     curl http://localhost:8080/users/42                  a parameter
//     curl http://localhost:8080/docs/a/b.txt              a wildcard
//     curl 'http://localhost:8080/search?q=%3Cb%3E'        the query, as HTML
//     curl http://localhost:8080/agent                     a field of the request
//     curl -d 'some text' http://localhost:8080/notes      a body; 201 with a field of our own
//     curl -i http://localhost:8080/old                    a redirect
//     curl -i http://localhost:8080/big                    a constant body that is not copied
//     curl -i http://localhost:8080/nowhere                404 and 405 are answered by themselves,
//     curl -i -X DELETE http://localhost:8080/agent        HEAD and OPTIONS too

#define HTTPSRV_IMPLEMENTATION
#include "httpsrv.h"
#include "serve.h"
#include <stdio.h>
#include <string.h>

// ":id" stands for one segment of the path. HTTPSRV_FMT gives the two arguments that "%.*s" takes.
static void show_user(httpsrv_req *req, void *user) {
    (void)user;
    httpsrv_str id = httpsrv_param(req, "id");
    httpsrv_replyf(req, 200, "text/plain; charset=utf-8", "user %.*s\n", HTTPSRV_FMT(id));
}

// "*rest" stands for all that follows, slashes included.
static void show_doc(httpsrv_req *req, void *user) {
    (void)user;
    httpsrv_str rest = httpsrv_param(req, "rest");
    httpsrv_replyf(req, 200, "text/plain; charset=utf-8", "document %.*s\n", HTTPSRV_FMT(rest));
}

static const char *html_entity(char c) {
    switch (c) {
    case '&': return "&amp;";
    case '<': return "&lt;";
    case '>': return "&gt;";
    case '"': return "&quot;";
    case '\'': return "&#39;";
    default: return NULL;
    }
}

// What a client sent must never reach a page as it is. The memory belongs to the request and goes with it.
static const char *escape_html(httpsrv_req *req, httpsrv_str text) {
    const size_t longest = strlen("&quot;");
    char *out = httpsrv_alloc(req, text.len * longest + 1);
    if (!out) return "";
    char *end = out;
    for (size_t i = 0; i < text.len; i++) {
        const char *entity = html_entity(text.ptr[i]);
        size_t len = entity ? strlen(entity) : 1;
        memcpy(end, entity ? entity : text.ptr + i, len);
        end += len;
    }
    *end = '\0';
    return out;
}

// An absent value has ptr == NULL; an empty one ("?q=") has not.
static void search(httpsrv_req *req, void *user) {
    (void)user;
    httpsrv_str q = httpsrv_query(req, "q");
    if (!q.ptr) {
        httpsrv_reply(req, 400, "text/plain", HTTPSRV_STR("add ?q=something\n"));
        return;
    }
    httpsrv_replyf(req, 200, "text/html; charset=utf-8", "<!doctype html><p>Nothing found for <b>%s</b>.\n",
                   escape_html(req, q));
}

// Names of fields are compared without regard to case.
static void show_agent(httpsrv_req *req, void *user) {
    (void)user;
    httpsrv_str agent = httpsrv_header(req, "user-agent");
    if (!agent.ptr) agent = HTTPSRV_STR("unknown");
    httpsrv_replyf(req, 200, "text/plain", "agent %.*s\n", HTTPSRV_FMT(agent));
}

// The body is complete when the handler runs; max_body below refuses larger ones before they are read.
static void take_note(httpsrv_req *req, void *user) {
    (void)user;
    httpsrv_str note = httpsrv_body(req);
    httpsrv_set(req, "Location", HTTPSRV_STR("/notes/1"));
    httpsrv_replyf(req, 201, "text/plain", "%zu bytes taken\n", note.len);
}

static void redirect(httpsrv_req *req, void *user) {
    (void)user;
    httpsrv_set(req, "Location", HTTPSRV_STR("/users/42"));
    httpsrv_reply(req, 302, NULL, HTTPSRV_STR(""));
}

static void nothing_to_release(void *arg) {
    (void)arg;
}

// With a release function the body is sent from where it lies. Here that is constant memory; otherwise the
// function gives it back, once, when the last byte is sent or the client has left.
static void big(httpsrv_req *req, void *user) {
    (void)user;
    static const char text[64 * 1024] = "A large constant, then zeroes.\n";
    const httpsrv_field fields[] = {{HTTPSRV_STR("Cache-Control"), HTTPSRV_STR("max-age=3600")}};
    httpsrv_reply_with(req, &(httpsrv_answer){
                                .status = 200,
                                .type = "application/octet-stream",
                                .body = {text, sizeof text},
                                .fields = fields,
                                .num_fields = 1,
                                .release = nothing_to_release,
                            });
}

int main(int argc, char **argv) {
    httpsrv *srv = httpsrv_new(&(httpsrv_config){.port = serve_port(argc, argv)});
    httpsrv_on(srv, "GET /users/:id", show_user, NULL);
    httpsrv_on(srv, "GET /docs/*rest", show_doc, NULL);
    httpsrv_on(srv, "GET /search", search, NULL);
    httpsrv_on(srv, "GET /agent", show_agent, NULL);
    httpsrv_on(srv, "GET /old", redirect, NULL);
    httpsrv_on(srv, "GET /big", big, NULL);
    httpsrv_route(srv, &(httpsrv_route_config){.pattern = "POST /notes", .handler = take_note, .max_body = 4096});

    int code = serve_as(srv, "localhost");
    httpsrv_free(srv);
    return code;
}
